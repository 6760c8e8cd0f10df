"""The store: a folder with the teacher's translations of one split.

manifest.json                 the data, teacher and settings it is made from; never changes
nbest/chunk-00000-SUM.npz     n-best lists of token ids by sentence id; SUM is the beginning
                              of the file's SHA-256
nbest/sums.json               the whole SHA-256 of every chunk, once all are there
best/, closest/, ...          data-bins to train on, with stock fairseq too
ctranslate2-SUM/              the teacher converted to CTranslate2, if that engine is used
check.json                    how far its translations equal fairseq's
text/                         the text it was made from, if it was; see ``source_text.py``
source-text/                  the text of the split, if an external teacher translated it
"""

import io
import os
from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from fairseq_seqkd.chunked.store import ChunkedStore
from fairseq_seqkd.decoding.engines import ENGINES
from fairseq_seqkd.io.files import write_json

_CONVERTED = "ctranslate2-"
_CHECK = "check.json"

# All but the first are reasons why a sentence has no hypothesis.
STATUSES = (
    "translated",
    "empty source",
    "source too long",
    "no finished hypothesis",
    "not in the import",
)


@dataclass
class NBest:
    """The n-best list of one sentence.

    Attributes:
        id: the sentence's position in the split
        status: one of ``STATUSES``
        hypotheses: [(tokens, score)], best first: (length,) token ids with EOS, and the
            length-normalised score in nats; empty unless the status is "translated"
    """

    id: int
    status: str
    hypotheses: List[Tuple[np.ndarray, float]]

    @classmethod
    def from_hypotheses(cls, id_, hypotheses):
        """The n-best list of a translated sentence, without hypotheses that are EOS alone."""
        hypotheses = [(tokens, score) for tokens, score in hypotheses if len(tokens) > 1]
        return cls(id_, "translated" if hypotheses else "no finished hypothesis", hypotheses)


class PseudoTargetStore(ChunkedStore):
    """A store of n-best lists on disk; see `ChunkedStore`."""

    FLAG, KIND, FORMAT = "--pseudo-targets", "store", 3
    FOLDER, SUFFIX = "nbest", "npz"

    def converted(self, checksums):
        """The folder for a converted teacher, by the SHA-256 of its checkpoints."""
        return self.path(_CONVERTED + checksums[0][:16])

    @property
    def is_checked(self):
        """Whether the converted teacher's translations were compared with fairseq's."""
        return os.path.exists(self.path(_CHECK))

    def has_databin(self, folder):
        """Whether there is a data-bin of that name."""
        return os.path.exists(os.path.join(self.path(folder), "target_spec.json"))

    def length_penalty(self, flag):
        """The length penalty of the search, by which scores are divided.

        Args:
            flag: the flag that needs it, for the message
        Raises:
            ValueError: the store was imported, or an external teacher made it
        """
        if "import" in self.manifest:
            raise ValueError(
                f"{flag}: the store {self.root!r} was imported, and how its scores were "
                "divided by lengths is not known. Expected a store of fairseq-seqkd generate."
            )
        if self.manifest["engine"]["name"] not in ENGINES:
            raise ValueError(
                f"{flag}: the scores of the store {self.root!r} are those of an external "
                "teacher, divided by lengths in its own subwords. Expected a store that a "
                "fairseq model made."
            )
        return self.manifest["search"]["lenpen"]

    def write_check(self, agreement):
        """Record the comparison, an `Agreement` as a dictionary."""
        write_json(self.path(_CHECK), agreement)

    def _is_ours(self, entry):
        return (
            super()._is_ours(entry)
            or entry.name == _CHECK
            or entry.name.startswith(_CONVERTED)
            or os.path.exists(os.path.join(entry.path, "target_spec.json"))
            or os.path.exists(os.path.join(entry.path, "text.json"))
            or os.path.exists(os.path.join(entry.path, "source.json"))
        )

    def write_chunk(self, index, sentences):
        """Write a chunk, a list of `NBest`, atomically."""
        hypotheses = [pair for sentence in sentences for pair in sentence.hypotheses]
        tokens = [tokens for tokens, _ in hypotheses]
        statuses = [STATUSES.index(sentence.status) for sentence in sentences]
        sizes = [len(sentence.hypotheses) for sentence in sentences]
        content = io.BytesIO()
        np.savez_compressed(
            content,
            ids=np.array([sentence.id for sentence in sentences], dtype=np.int64),
            statuses=np.array(statuses, dtype=np.uint8),
            n_hypotheses=np.array(sizes, dtype=np.int32),
            lengths=np.array([len(t) for t in tokens], dtype=np.int32),
            tokens=np.concatenate(tokens or [[]]).astype(np.int32),
            scores=np.array([score for _, score in hypotheses], dtype=np.float32),
        )
        self.chunks.write(index, content.getvalue())


def read_nbest(path):
    """Yield the `NBest` of every sentence of a chunk, in the order of the plan."""
    with np.load(path, allow_pickle=False) as arrays:
        chunk = dict(arrays)
    ends = np.cumsum(chunk["lengths"])
    hypotheses = zip(np.split(chunk["tokens"], ends[:-1]), chunk["scores"].tolist())
    columns = chunk["ids"].tolist(), chunk["statuses"], chunk["n_hypotheses"]
    for id_, status, size in zip(*columns):
        yield NBest(id_, STATUSES[status], [next(hypotheses) for _ in range(size)])
