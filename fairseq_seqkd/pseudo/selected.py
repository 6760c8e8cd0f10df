"""The selected hypothesis of every sentence of a store.

Memory holds a few numbers a sentence, never its tokens: the lists are read chunk by chunk,
longest sources first, and the selected tokens go to a nameless file until the data-bin is
written in the order of the split.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fairseq_seqkd.io.files import naming
from fairseq_seqkd.io.progress import progress_bar
from fairseq_seqkd.pseudo.store import STATUSES, read_nbest


@dataclass
class SelectedHypotheses:
    """Every sentence's selected hypothesis, in the order of the split.

    Attributes:
        statuses: (sentences,) indices in ``STATUSES``
        scores: (sentences,) the teacher's normalised scores, nats a token
        source_lengths, target_lengths: (sentences,) tokens, with EOS
        copies: (sentences,) whether source and hypothesis are the same symbols
        pairs: (sentences,) hashes of source and hypothesis together
        offsets: (sentences,) where the tokens stand in ``file``
        file: a file without a name, gone with the process
    """

    statuses: np.ndarray
    scores: np.ndarray
    source_lengths: np.ndarray
    target_lengths: np.ndarray
    copies: np.ndarray
    pairs: np.ndarray
    offsets: np.ndarray
    file: Any

    @classmethod
    def empty(cls, source_lengths, folder):
        """No hypothesis for any sentence yet, and a file in ``folder``."""
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
    def translated(self):
        """(sentences,) whether there is a hypothesis at all."""
        return self.statuses == STATUSES.index("translated")

    def add(self, chunk):
        """Take in one chunk, as `SelectionDataset` gives it."""
        ids = chunk["ids"]
        for name in ("statuses", "scores", "target_lengths", "copies", "pairs"):
            getattr(self, name)[ids] = chunk[name]
        lengths = chunk["target_lengths"].astype(np.int64)
        self.offsets[ids] = self.file.tell() + 4 * (np.cumsum(lengths) - lengths)
        self.file.write(chunk["tokens"].tobytes())

    def tokens(self, id_):
        """(length,) the selected hypothesis of a sentence."""
        size = 4 * int(self.target_lengths[id_])
        return np.frombuffer(os.pread(self.file.fileno(), size, self.offsets[id_]), np.int32)


class SelectionDataset(torch.utils.data.Dataset):
    """One item a chunk: the selected hypotheses of its sentences.

    Args:
        paths: of the chunks
        dataset: the split's LanguagePairDataset
        selector: see ``selectors.py``
    """

    def __init__(self, paths, dataset, selector):
        self.paths = paths
        self.dataset = dataset
        self.selector = selector
        # A source symbol's index among the target's, -1 if it has none.
        indices = dataset.tgt_dict.indices
        self.as_target = np.array([indices.get(s, -1) for s in dataset.src_dict.symbols])

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        selected = [self._select(sentence) for sentence in read_nbest(self.paths[index])]
        ids, statuses, scores, tokens, copies, pairs = zip(*selected)
        return {
            "ids": np.array(ids),
            "statuses": np.array([STATUSES.index(one) for one in statuses], np.uint8),
            "scores": np.array(scores, np.float32),
            "target_lengths": np.array([len(one) for one in tokens], np.int32),
            "tokens": np.concatenate(tokens).astype(np.int32),
            "copies": np.array(copies),
            "pairs": np.array(pairs, np.uint64),
        }

    def _select(self, sentence):
        if not sentence.hypotheses:
            return sentence.id, sentence.status, -np.inf, np.zeros(0, np.int32), False, 0
        source = self.dataset.src[sentence.id].numpy()
        gold = self.dataset.tgt[sentence.id] if self.dataset.tgt is not None else None
        tokens, score = sentence.hypotheses[self.selector(sentence.hypotheses, gold)]
        is_copy = np.array_equal(self.as_target[source], tokens)
        pair = hashlib.blake2b(source.tobytes() + tokens.tobytes(), digest_size=8)
        hashed = int.from_bytes(pair.digest(), "little")
        return sentence.id, sentence.status, score, tokens, is_copy, hashed


def identity(chunk):
    """The chunk itself, as the collating function; torch's default would make tensors of it."""
    return chunk


def select_hypotheses(store, split, selector, processes=0):
    """Select a hypothesis for every sentence of a store.

    Args:
        store: `PseudoTargetStore`, all chunks there
        split: `Split`
        selector: see ``selectors.py``
        processes: how many more processes compare with gold; 0 does it in this one
    Returns:
        `SelectedHypotheses`
    """
    paths = [path for _, path in sorted(store.chunks.find().items())]
    chunks = torch.utils.data.DataLoader(
        SelectionDataset(paths, split.dataset, selector),
        batch_size=None,
        num_workers=processes if selector.needs_gold and processes > 1 else 0,
        collate_fn=identity,
        generator=torch.Generator(),  # the global one is the student's
    )
    selected = SelectedHypotheses.empty(split.dataset.src_sizes, store.root)
    with naming(store.root):
        for chunk in progress_bar(chunks, unit=" chunks", desc=f"selecting {selector.folder}"):
            selected.add(chunk)
        selected.file.flush()
    return selected
