"""A data-bin like the gold one, with other targets: stock fairseq trains on it."""

import os
import shutil

import numpy as np
import torch
from fairseq.data import indexed_dataset

from fairseq_seqkd.shards import atomic_directory, write_json


def write_databin(path, split, ids, target_of, selection):
    """Copy the gold data-bin, with the targets of one split replaced.

    Args:
        path: the new folder; must not be there yet
        split: :class:`~fairseq_seqkd.pseudo.corpus.Split`
        ids: the sentences that stay, in the order of the split
        target_of: gives the (length,) token ids, with EOS, of a sentence id
        selection: how they were chosen; written to ``selection.json``
    """
    dataset = split.dataset
    pair = split.prefix
    if split.is_source_only:
        pair = f"{split.name}.{split.source_lang}-{split.target_lang}"
    source = f"{split.prefix}.{split.source_lang}."
    with atomic_directory(path) as folder:
        for name in sorted(os.listdir(split.folder)):
            if name.startswith(source) and len(ids) == len(split):
                _copy(split.folder, name, folder, pair + name[len(split.prefix) :])
            elif not name.startswith((split.prefix + ".", f"{split.name}.align.")):
                _copy(split.folder, name, folder, name)
        prefix = os.path.join(folder, pair)
        if len(ids) < len(split):
            sources = (dataset.src[int(id_)].numpy() for id_ in ids)
            _write_indexed(f"{prefix}.{split.source_lang}", sources, dataset.src_dict)
        targets = (target_of(int(id_)) for id_ in ids)
        _write_indexed(f"{prefix}.{split.target_lang}", targets, dataset.tgt_dict)
        write_json(os.path.join(folder, "selection.json"), selection)


def _copy(folder, name, to_folder, to_name):
    source = os.path.join(folder, name)
    if os.path.isfile(source):
        shutil.copyfile(source, os.path.join(to_folder, to_name))


def _write_indexed(prefix, sentences, dictionary):
    builder = indexed_dataset.make_builder(
        indexed_dataset.data_file_path(prefix), impl="mmap", vocab_size=len(dictionary)
    )
    for tokens in sentences:
        builder.add_item(torch.from_numpy(np.array(tokens)))
    builder.finalize(indexed_dataset.index_file_path(prefix))
