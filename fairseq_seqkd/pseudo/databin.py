"""A data-bin like the gold one, with other targets: stock fairseq trains on it."""

import os
import shutil

import numpy as np
import torch
from fairseq.data import indexed_dataset

from fairseq_seqkd.shards import atomic_directory, write_json


def write_databin(path, split, targets, selection):
    """Copy the gold data-bin, with the targets of one split replaced.

    Args:
        path: the new folder; must not be there yet
        split: :class:`~fairseq_seqkd.pseudo.corpus.GoldSplit`
        targets: (length,) token ids with EOS for every sentence of the split, in order
        selection: how they were chosen; written to ``selection.json``
    Raises:
        ValueError: there are not as many targets as the split has sentences
    """
    if len(targets) != len(split.dataset):
        raise ValueError(
            f"{len(targets)} targets for the {len(split.dataset)} sentences of "
            f"{split.name!r} in {split.folder!r}"
        )
    replaced = f"{split.prefix}.{split.target_lang}"
    with atomic_directory(path) as folder:
        for name in sorted(os.listdir(split.folder)):
            source = os.path.join(split.folder, name)
            if os.path.isfile(source) and not name.startswith(replaced + "."):
                shutil.copyfile(source, os.path.join(folder, name))
        _write_indexed(os.path.join(folder, replaced), targets, len(split.dataset.tgt_dict))
        write_json(os.path.join(folder, "selection.json"), selection)


def _write_indexed(prefix, targets, vocab_size):
    builder = indexed_dataset.make_builder(
        indexed_dataset.data_file_path(prefix), impl="mmap", vocab_size=vocab_size
    )
    for tokens in targets:
        builder.add_item(torch.from_numpy(np.asarray(tokens)))
    builder.finalize(indexed_dataset.index_file_path(prefix))
