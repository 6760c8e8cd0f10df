"""Collects the hypotheses of an import into n-best lists."""

import math
import os
import tempfile
from array import array

import numpy as np

from fairseq_seqkd.io.files import name_in_errors
from fairseq_seqkd.pseudo.store import NBest


class NBestCollector:
    """Collects hypotheses in any order, then returns the n-best list of each sentence.

    Memory holds three numbers per hypothesis; a temporary file holds the tokens.

    Args:
        folder: where the temporary file is made
    """

    def __init__(self, folder):
        self.folder = folder
        self.ids, self.scores, self.lengths = array("q"), array("d"), array("i")
        self.file = tempfile.TemporaryFile(dir=folder)

    def add(self, id_, score, tokens):
        """Add a hypothesis.

        Args:
            id_: the sentence's position in the split
            score: in nats per token; None ranks it behind those added before
            tokens: (length,) int32 token ids, with EOS
        """
        self.ids.append(id_)
        self.scores.append(math.nan if score is None else score)
        self.lengths.append(len(tokens))
        with name_in_errors(self.folder):
            self.file.write(tokens.tobytes())

    def sort(self):
        """Sort by sentence, and by score within a sentence, once all hypotheses are added."""
        with name_in_errors(self.folder):
            self.file.flush()
        lengths = np.array(self.lengths, dtype=np.int64)
        offsets = 4 * (np.cumsum(lengths) - lengths)
        ids, scores = np.array(self.ids), np.array(self.scores)
        order = np.lexsort((-scores, ids))  # stable: equal scores stay in the order of adding
        self.ids, self.scores = ids[order], scores[order]
        self.lengths, self.offsets = lengths[order], offsets[order]

    def largest_nbest(self):
        """The number of hypotheses of the sentence that has most."""
        return int(np.unique(self.ids, return_counts=True)[1].max(initial=0))

    def sentence(self, id_):
        """The `NBest` of a sentence, without duplicate hypotheses."""
        begin, end = np.searchsorted(self.ids, [id_, id_ + 1])
        if begin == end:
            return NBest(id_, "not in the import", [])
        by_tokens = {}
        for row in range(begin, end):
            size, offset = 4 * int(self.lengths[row]), int(self.offsets[row])
            raw = os.pread(self.file.fileno(), size, offset)
            score = float(self.scores[row])
            if score != -math.inf:  # fairseq-generate prints it for a missing hypothesis
                by_tokens.setdefault(raw, (np.frombuffer(raw, np.int32), score))
        return NBest.from_hypotheses(id_, list(by_tokens.values()))
