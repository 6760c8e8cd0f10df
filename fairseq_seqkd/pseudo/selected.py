"""The selected hypotheses of every sentence of a store.

Only a few numbers per sentence stay in memory. The chunks hold the longest sources first, and
a data-bin is written in the order of the split: in between, a temporary file holds the tokens.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from typing import Any, Dict, Optional

import numpy as np
import torch

from fairseq_seqkd.io.files import name_in_errors
from fairseq_seqkd.io.progress import progress_bar
from fairseq_seqkd.pseudo.store import STATUSES, read_nbest
from fairseq_seqkd.pseudo.text_measures import TextMeasures


@dataclass
class SelectedHypotheses:
    """One hypothesis per sentence, or the best few, in the order of the split.

    The rows of a sentence stand together: row id * ``keep`` + rank, where rank 0 is the best.

    Attributes:
        keep: rows per sentence
        lenpen: the length penalty of the scores; None if that is not known
        has_gold: whether a sentence without a hypothesis has a gold target
        measures: {name: (rows,) numbers} of the texts, see ``text_measures.py``
        statuses: (rows,) indices into ``STATUSES``, of the first row of each sentence
        scores: (rows,) the teacher's normalised scores, in nats per token
        source_lengths, target_lengths: (rows,) tokens, with EOS; 0 without a hypothesis
        copy_mask: (rows,) True where the hypothesis is the source, symbol by symbol
        pair_hashes: (rows,) hashes of source and hypothesis together
        offsets: (rows,) positions of the hypotheses in ``file``, in bytes
        file: a temporary file with the tokens, int32
    """

    keep: int
    lenpen: Optional[float]
    has_gold: bool
    measures: Dict[str, np.ndarray]
    statuses: np.ndarray
    scores: np.ndarray
    source_lengths: np.ndarray
    target_lengths: np.ndarray
    copy_mask: np.ndarray
    pair_hashes: np.ndarray
    offsets: np.ndarray
    file: Any

    @classmethod
    def empty(cls, split, store, keep=1, measures=()):
        """No hypotheses yet; the temporary file is made in the folder of the store."""
        source_lengths = np.asarray(split.dataset.src_sizes)
        rows = keep * len(source_lengths)
        kinds = (np.int32, bool, np.uint64, np.int64)
        return cls(
            keep,
            store.manifest["search"].get("lenpen"),
            split.has_gold,
            {name: np.full(rows, np.nan, np.float32) for name in measures},
            np.zeros(rows, np.uint8),
            np.full(rows, -np.inf, np.float32),
            np.repeat(source_lengths, keep),
            *(np.zeros(rows, kind) for kind in kinds),
            tempfile.TemporaryFile(dir=store.root),
        )

    @property
    def translated_mask(self):
        """(rows,) True where there is a hypothesis."""
        return self.target_lengths > 0

    @property
    def pair_mask(self):
        """(rows,) True for the pairs of a data-bin without filters."""
        mask = self.translated_mask.copy()
        if self.has_gold:  # kept as the target of sentences without a hypothesis
            mask[:: self.keep] |= ~mask.reshape(-1, self.keep).any(1)
        return mask

    def add(self, chunk):
        """Add an item of `SelectedChunks`."""
        rows = chunk["rows"]
        for name in ("statuses", "scores", "target_lengths", "copy_mask", "pair_hashes"):
            getattr(self, name)[rows] = chunk[name]
        for name, column in zip(self.measures, chunk["measures"].T):
            self.measures[name][rows] = column
        lengths = chunk["target_lengths"].astype(np.int64)
        self.offsets[rows] = self.file.tell() + 4 * (np.cumsum(lengths) - lengths)
        self.file.write(chunk["tokens"].tobytes())

    def tokens(self, row):
        """(length,) token ids of a row's hypothesis, with EOS."""
        size = 4 * int(self.target_lengths[row])
        return np.frombuffer(os.pread(self.file.fileno(), size, self.offsets[row]), np.int32)


class SelectedChunks(torch.utils.data.Dataset):
    """A data set with one item per chunk: the selected hypotheses of its sentences.

    Args:
        paths: the files of the chunks
        dataset: the split's LanguagePairDataset
        selector: see ``selectors.py``
        keep: the number of hypotheses per sentence
        measure: `TextMeasures`
    """

    def __init__(self, paths, dataset, selector, keep, measure):
        self.paths = paths
        self.dataset = dataset
        self.selector = selector
        self.keep = keep
        self.measure = measure
        # The target index of every source symbol, -1 if the target dictionary lacks it.
        indices = dataset.tgt_dict.indices
        self.to_target = np.array([indices.get(s, -1) for s in dataset.src_dict.symbols])

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        selected = [row for one in read_nbest(self.paths[index]) for row in self._rows(one)]
        rows, statuses, scores, tokens, copy_mask, pair_hashes, measures = zip(*selected)
        return {
            "rows": np.array(rows),
            "statuses": np.array([STATUSES.index(status) for status in statuses], np.uint8),
            "scores": np.array(scores, np.float32),
            "target_lengths": np.array(list(map(len, tokens)), np.int32),
            "tokens": np.concatenate(tokens).astype(np.int32),
            "copy_mask": np.array(copy_mask),
            "pair_hashes": np.array(pair_hashes, np.uint64),
            "measures": np.array(measures, np.float32),
        }

    def _rows(self, sentence):
        row = sentence.id * self.keep
        if not sentence.hypotheses:
            nothing = [np.nan] * len(self.measure.functions)
            yield row, sentence.status, -np.inf, np.zeros(0, np.int32), False, 0, nothing
            return
        source = self.dataset.src[sentence.id].numpy()
        gold = self.dataset.tgt[sentence.id] if self.dataset.tgt is not None else None
        ranking = self.selector.ranking(sentence.hypotheses, gold, sentence.id)
        for rank, index in enumerate(ranking[: self.keep]):
            tokens, score = sentence.hypotheses[index]
            is_copy = np.array_equal(self.to_target[source], tokens)
            yield (
                *(row + rank, sentence.status, score, tokens, is_copy, _hash(source, tokens)),
                self.measure(source, tokens, gold),
            )


def _hash(source, tokens):
    digest = hashlib.blake2b(source.tobytes() + tokens.tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def identity(chunk):
    """Return the chunk itself: a collating function that makes no tensors of it."""
    return chunk


def select_hypotheses(store, split, selector, processes=0, keep=1, measures=None, text=None):
    """Select a hypothesis, or the best few, for every sentence of a store.

    Args:
        store: `PseudoTargetStore` with all its chunks
        split: `PairSplit`
        selector: see ``selectors.py``
        processes: how many processes compare texts, if the selector does; 0 or 1: this one
        keep: the number of hypotheses per sentence
        measures: {name: function of a `TextPair`} to compute of each
        text: arguments of `Detokeniser`, how tokens become text
    Returns:
        `SelectedHypotheses`
    """
    selector, measures = selector.of_store(store), measures or {}
    measure = TextMeasures(list(measures.values()), split, text or {})
    paths = [path for _, path in sorted(store.chunks.find().items())]
    chunks = torch.utils.data.DataLoader(
        SelectedChunks(paths, split.dataset, selector, keep, measure),
        batch_size=None,
        num_workers=processes if (selector.needs_list or measures) and processes > 1 else 0,
        collate_fn=identity,
        generator=torch.Generator(),  # does not draw from the global one, the student's
    )
    selected = SelectedHypotheses.empty(split, store, keep, measures)
    with name_in_errors(store.root):
        for chunk in progress_bar(chunks, unit=" chunks", desc=f"selecting {selector.folder}"):
            selected.add(chunk)
        selected.file.flush()
    return selected
