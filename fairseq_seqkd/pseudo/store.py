"""The store: one folder with everything that the teacher said about one split.

manifest.json                 what it was made from and how; never changes
nbest/chunk-00000-SUM.npz     n-best lists, token ids, keyed by sentence id; SUM is the
                              beginning of the file's SHA-256
nbest/sums.json               the whole SHA-256 of every chunk, once all are there
best/, closest/, ...          data-bins that stock fairseq trains on
ctranslate2-SUM/              the teacher as CTranslate2 wants it, if that translated
"""

import io
import os
from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from fairseq_seqkd.chunked.store import ChunkedStore

_CONVERTED = "ctranslate2-"

# Why a sentence has no hypothesis, and keeps its gold target.
STATUSES = (
    "translated",
    "empty source",
    "source too long",
    "no finished hypothesis",
    "not in the import",
)


@dataclass
class NBest:
    """What the teacher said about one sentence.

    Attributes:
        id: its place in the split
        status: one of ``STATUSES``
        hypotheses: [(tokens, score)], best first; empty unless translated
    """

    id: int
    status: str
    hypotheses: List[Tuple[np.ndarray, float]]

    @property
    def n_tokens(self):
        """The tokens of the best hypothesis."""
        return len(self.hypotheses[0][0]) if self.hypotheses else 0


class PseudoTargetStore(ChunkedStore):
    """A store on disk; see `ChunkedStore`."""

    FLAG, KIND, FORMAT = "--pseudo-targets", "store", 3
    FOLDER, SUFFIX = "nbest", "npz"

    def converted(self, teacher):
        """The folder of a converted teacher, for the SHA-256 of its checkpoints."""
        return self.path(_CONVERTED + teacher[0][:16])

    def _is_ours(self, entry):
        """Whether it is a fixed name, or a data-bin with a choice of ours."""
        return (
            super()._is_ours(entry)
            or entry.name.startswith(_CONVERTED)
            or os.path.exists(os.path.join(entry.path, "target_spec.json"))
        )

    def write_chunk(self, index, sentences):
        """Write a list of `NBest`; the chunk is there whole or not at all."""
        hypotheses = [pair for one in sentences for pair in one.hypotheses]
        tokens = [tokens for tokens, _ in hypotheses]
        content = io.BytesIO()
        np.savez_compressed(
            content,
            ids=np.array([one.id for one in sentences], dtype=np.int64),
            statuses=np.array([STATUSES.index(one.status) for one in sentences], np.uint8),
            counts=np.array([len(one.hypotheses) for one in sentences], dtype=np.int32),
            lengths=np.array([len(t) for t in tokens], dtype=np.int32),
            tokens=np.concatenate(tokens or [[]]).astype(np.int32),
            scores=np.array([score for _, score in hypotheses], dtype=np.float32),
        )
        self.chunks.write(index, content.getvalue())


def read_nbest(path):
    """Yield a chunk's sentences as `NBest`, in the order of the plan."""
    with np.load(path, allow_pickle=False) as arrays:
        chunk = dict(arrays)
    ends = np.cumsum(chunk["lengths"])
    hypotheses = zip(np.split(chunk["tokens"], ends[:-1]), chunk["scores"].tolist())
    for id_, status, count in zip(chunk["ids"].tolist(), chunk["statuses"], chunk["counts"]):
        yield NBest(id_, STATUSES[status], [next(hypotheses) for _ in range(count)])
