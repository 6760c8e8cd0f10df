"""The store: one folder with everything that the teacher said about one split.

manifest.json                 what it was made from and how; never changes
nbest/chunk-00000-SUM.npz     n-best lists, token ids, keyed by sentence id; SUM is the
                              beginning of the file's SHA-256
nbest/sums.json               the whole SHA-256 of every chunk, once all are there
best/, closest/, ...          data-bins that stock fairseq trains on
ctranslate2-SUM/              the teacher as CTranslate2 wants it, if that translated
"""

import contextlib
import io
import os
import shutil
import tempfile
from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from fairseq_seqkd.shards import (
    ChunkFolder,
    differences,
    locked,
    plan_chunks,
    read_json,
    sha256,
    write_json,
)

FORMAT = 2
_CONVERTED = "ctranslate2-"

# Why a sentence has no hypothesis, and keeps its gold target.
OUTCOMES = (
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
        outcome: one of ``OUTCOMES``
        hypotheses: [(tokens, score)], best first; empty unless translated
    """

    id: int
    outcome: str
    hypotheses: List[Tuple[np.ndarray, float]]


class PseudoTargetStore:
    """A store on disk; the folder need not be there yet.

    Args:
        root: the folder
    """

    def __init__(self, root):
        self.root = root
        self.chunks = ChunkFolder(self.path("nbest"), "npz")

    def path(self, *names):
        return os.path.join(self.root, *names)

    def converted(self, teacher):
        """The folder of a converted teacher, for the SHA-256 of its checkpoints."""
        return self.path(_CONVERTED + teacher[0][:16])

    @property
    def exists(self):
        return os.path.exists(self.path("manifest.json"))

    @property
    def manifest(self):
        """What the store was made from and how, as nested dictionaries."""
        return read_json(self.path("manifest.json"))

    def locked(self):
        """Hold this while building; see :func:`~fairseq_seqkd.shards.locked`."""
        return locked(self.path("manifest.json"))

    def create(self, manifest):
        """Begin a store. If another process has just done so, it must be the same one.

        Raises:
            ValueError: another process began one that differs
        """
        os.makedirs(self.path("nbest"), exist_ok=True)
        try:
            write_json(self.path("manifest.json"), {"format": FORMAT, **manifest}, new=True)
        except FileExistsError:
            self.check(manifest)

    @contextlib.contextmanager
    def replaced(self):
        """Put the store that is there away; it is back if the block fails, else gone.

        Raises:
            ValueError: the folder has something that is not a store's
        """
        if not os.path.isdir(self.root) or not os.listdir(self.root):
            yield
            return
        foreign = [one.name for one in os.scandir(self.root) if not self._is_ours(one)]
        if foreign:
            raise ValueError(
                f"--overwrite: {self.root!r} has {sorted(foreign)[0]!r}, which is not a "
                "store's. Nothing was removed."
            )
        parent, name = os.path.split(os.path.abspath(self.root))
        away = tempfile.mkdtemp(prefix=f".{name}.", suffix=".old", dir=parent)
        os.rename(self.root, away)
        try:
            yield
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            os.rename(away, self.root)
            raise
        shutil.rmtree(away)

    def _is_ours(self, entry):
        """Whether it is the manifest, a fixed name, or a data-bin with a choice of ours."""
        return (
            entry.name in ("manifest.json", "nbest")
            or entry.name.startswith(_CONVERTED)
            or entry.name.endswith(".part")
            or os.path.exists(os.path.join(entry.path, "selection.json"))
        )

    def check(self, expected):
        """Refuse to go on with a store that was made otherwise.

        Args:
            expected: what the manifest should say; entries of None ask for nothing
        Raises:
            ValueError: lists every entry that differs
        """
        found = differences(self.manifest, {"format": FORMAT, **expected})
        if found:
            raise ValueError(
                f"--pseudo-targets: the store {self.root!r} was made otherwise:\n  "
                + "\n  ".join(found)
                + "\nName another folder to make a new store, or take the flags and data "
                "that this one was made with."
            )

    def n_chunks(self, sentences):
        """How many chunks a split of so many sentences has."""
        return -(-sentences // self.manifest["chunk_size"])

    def plan(self, lengths):
        """The sentence ids of every chunk, for source ``lengths`` in tokens."""
        return plan_chunks(lengths, self.manifest["chunk_size"])

    def write_chunk(self, index, sentences):
        """Write a list of :class:`NBest`; the chunk is there whole or not at all."""
        hypotheses = [pair for one in sentences for pair in one.hypotheses]
        tokens = [tokens for tokens, _ in hypotheses]
        content = io.BytesIO()
        np.savez_compressed(
            content,
            ids=np.array([one.id for one in sentences], dtype=np.int64),
            outcomes=np.array([OUTCOMES.index(one.outcome) for one in sentences], np.uint8),
            counts=np.array([len(one.hypotheses) for one in sentences], dtype=np.int32),
            lengths=np.array([len(t) for t in tokens], dtype=np.int32),
            tokens=np.concatenate(tokens or [[]]).astype(np.int32),
            scores=np.array([score for _, score in hypotheses], dtype=np.float32),
        )
        self.chunks.write(index, content.getvalue())

    def write_sums(self):
        """Seal the n-best lists: write down every chunk's checksum."""
        if not os.path.exists(self.path("nbest", "sums.json")):
            paths = self.chunks.find().values()
            sums = {os.path.basename(path): sha256(path) for path in paths}
            write_json(self.path("nbest", "sums.json"), sums)


def read_nbest(path):
    """Yield a chunk's sentences as :class:`NBest`, in the order of the plan."""
    with np.load(path, allow_pickle=False) as arrays:
        chunk = dict(arrays)
    ends = np.cumsum(chunk["lengths"])
    hypotheses = zip(np.split(chunk["tokens"], ends[:-1]), chunk["scores"].tolist())
    for id_, outcome, count in zip(chunk["ids"].tolist(), chunk["outcomes"], chunk["counts"]):
        yield NBest(id_, OUTCOMES[outcome], [next(hypotheses) for _ in range(count)])
