"""The selected hypothesis of every sentence of a store.

Only a few numbers per sentence stay in memory. The chunks hold the longest sources first, and
a data-bin is written in the order of the split: in between, a temporary file holds the tokens.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fairseq_seqkd.io.files import name_in_errors
from fairseq_seqkd.io.progress import progress_bar
from fairseq_seqkd.pseudo.store import STATUSES, read_nbest


@dataclass
class SelectedHypotheses:
    """One hypothesis per sentence, in the order of the split.

    Attributes:
        statuses: (sentences,) indices into ``STATUSES``
        scores: (sentences,) the teacher's normalised scores, in nats per token
        source_lengths, target_lengths: (sentences,) tokens, with EOS
        copy_mask: (sentences,) True where the hypothesis is the source, symbol by symbol
        pair_hashes: (sentences,) hashes of source and hypothesis together
        offsets: (sentences,) positions of the hypotheses in ``file``, in bytes
        file: a temporary file with the tokens, int32
    """

    statuses: np.ndarray
    scores: np.ndarray
    source_lengths: np.ndarray
    target_lengths: np.ndarray
    copy_mask: np.ndarray
    pair_hashes: np.ndarray
    offsets: np.ndarray
    file: Any

    @classmethod
    def empty(cls, source_lengths, folder):
        """No hypotheses yet; ``folder`` is where the temporary file is made."""
        sentences = len(source_lengths)
        kinds = (np.int32, bool, np.uint64, np.int64)
        return cls(
            np.zeros(sentences, np.uint8),
            np.full(sentences, -np.inf, np.float32),
            np.asarray(source_lengths),
            *(np.zeros(sentences, kind) for kind in kinds),
            tempfile.TemporaryFile(dir=folder),
        )

    @property
    def translated_mask(self):
        """(sentences,) True where there is a hypothesis."""
        return self.statuses == STATUSES.index("translated")

    def add(self, chunk):
        """Add an item of `SelectedChunks`."""
        ids = chunk["ids"]
        for name in ("statuses", "scores", "target_lengths", "copy_mask", "pair_hashes"):
            getattr(self, name)[ids] = chunk[name]
        lengths = chunk["target_lengths"].astype(np.int64)
        self.offsets[ids] = self.file.tell() + 4 * (np.cumsum(lengths) - lengths)
        self.file.write(chunk["tokens"].tobytes())

    def tokens(self, id_):
        """(length,) token ids of a sentence's hypothesis, with EOS."""
        size = 4 * int(self.target_lengths[id_])
        return np.frombuffer(os.pread(self.file.fileno(), size, self.offsets[id_]), np.int32)


class SelectedChunks(torch.utils.data.Dataset):
    """A data set with one item per chunk: the selected hypotheses of its sentences.

    Args:
        paths: the files of the chunks
        dataset: the split's LanguagePairDataset
        selector: see ``selectors.py``
    """

    def __init__(self, paths, dataset, selector):
        self.paths = paths
        self.dataset = dataset
        self.selector = selector
        # The target index of every source symbol, -1 if the target dictionary lacks it.
        indices = dataset.tgt_dict.indices
        self.to_target = np.array([indices.get(s, -1) for s in dataset.src_dict.symbols])

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        selected = [self._select(sentence) for sentence in read_nbest(self.paths[index])]
        ids, statuses, scores, tokens, copy_mask, pair_hashes = zip(*selected)
        return {
            "ids": np.array(ids),
            "statuses": np.array([STATUSES.index(status) for status in statuses], np.uint8),
            "scores": np.array(scores, np.float32),
            "target_lengths": np.array(list(map(len, tokens)), np.int32),
            "tokens": np.concatenate(tokens).astype(np.int32),
            "copy_mask": np.array(copy_mask),
            "pair_hashes": np.array(pair_hashes, np.uint64),
        }

    def _select(self, sentence):
        if not sentence.hypotheses:
            return sentence.id, sentence.status, -np.inf, np.zeros(0, np.int32), False, 0
        source = self.dataset.src[sentence.id].numpy()
        gold = self.dataset.tgt[sentence.id] if self.dataset.tgt is not None else None
        tokens, score = sentence.hypotheses[self.selector(sentence.hypotheses, gold)]
        is_copy = np.array_equal(self.to_target[source], tokens)
        digest = hashlib.blake2b(source.tobytes() + tokens.tobytes(), digest_size=8).digest()
        pair_hash = int.from_bytes(digest, "little")
        return sentence.id, sentence.status, score, tokens, is_copy, pair_hash


def identity(chunk):
    """Return the chunk itself: a collating function that makes no tensors of it."""
    return chunk


def select_hypotheses(store, split, selector, processes=0):
    """Select a hypothesis for every sentence of a store.

    Args:
        store: `PseudoTargetStore` with all its chunks
        split: `PairSplit`
        selector: see ``selectors.py``
        processes: how many processes compare texts, if the selector does; 0 or 1: this one
    Returns:
        `SelectedHypotheses`
    """
    selector = selector.of_store(store)
    paths = [path for _, path in sorted(store.chunks.find().items())]
    chunks = torch.utils.data.DataLoader(
        SelectedChunks(paths, split.dataset, selector),
        batch_size=None,
        num_workers=processes if selector.needs_list and processes > 1 else 0,
        collate_fn=identity,
        generator=torch.Generator(),  # does not draw from the global one, the student's
    )
    selected = SelectedHypotheses.empty(split.dataset.src_sizes, store.root)
    with name_in_errors(store.root):
        for chunk in progress_bar(chunks, unit=" chunks", desc=f"selecting {selector.folder}"):
            selected.add(chunk)
        selected.file.flush()
    return selected
