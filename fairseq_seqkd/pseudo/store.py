"""The store: one folder with everything that the teacher said about one split.

manifest.json            what it was made from and how; never changes
nbest/chunk-00000.npz    n-best lists, token ids, keyed by sentence id
nbest/sums.json          the chunks' checksums, and how many kept their gold target
best/, closest/          data-bins that stock fairseq trains on
"""

import os
from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from fairseq_seqkd.shards import (
    atomic_file,
    differences,
    plan_chunks,
    read_json,
    sha256,
    write_json,
)

FORMAT = 1

# Why a sentence has no hypothesis, and keeps its gold target.
OUTCOMES = ("translated", "empty source", "source too long", "no finished hypothesis")


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

    def path(self, *names):
        return os.path.join(self.root, *names)

    @property
    def exists(self):
        return os.path.exists(self.path("manifest.json"))

    @property
    def manifest(self):
        """What the store was made from and how, as nested dictionaries."""
        return read_json(self.path("manifest.json"))

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

    def plan(self, lengths):
        """The sentence ids of every chunk, for source ``lengths`` in tokens."""
        return plan_chunks(lengths, self.manifest["chunk_size"])

    def chunk_path(self, index):
        return self.path("nbest", f"chunk-{index:05d}.npz")

    def write_chunk(self, index, sentences):
        """Write a list of :class:`NBest` under its final name, whole or not at all."""
        hypotheses = [pair for one in sentences for pair in one.hypotheses]
        tokens = [tokens for tokens, _ in hypotheses]
        arrays = {
            "ids": np.array([one.id for one in sentences], dtype=np.int64),
            "outcomes": np.array(
                [OUTCOMES.index(one.outcome) for one in sentences], dtype=np.uint8
            ),
            "counts": np.array([len(one.hypotheses) for one in sentences], dtype=np.int32),
            "lengths": np.array([len(t) for t in tokens], dtype=np.int32),
            "tokens": np.concatenate(tokens or [[]]).astype(np.int32),
            "scores": np.array([score for _, score in hypotheses], dtype=np.float32),
        }
        with atomic_file(self.chunk_path(index)) as file:
            np.savez_compressed(file, **arrays)

    def read_chunk(self, index):
        """Yield the chunk's sentences as :class:`NBest`, in the order of the plan."""
        with np.load(self.chunk_path(index), allow_pickle=False) as arrays:
            chunk = dict(arrays)
        ends = np.cumsum(chunk["lengths"])
        hypotheses = zip(np.split(chunk["tokens"], ends[:-1]), chunk["scores"].tolist())
        for id_, outcome, count in zip(
            chunk["ids"].tolist(), chunk["outcomes"], chunk["counts"]
        ):
            yield NBest(id_, OUTCOMES[outcome], [next(hypotheses) for _ in range(count)])

    def write_sums(self, n_chunks, outcomes):
        """Seal the n-best lists: every chunk's checksum, and the outcomes' counts."""
        if os.path.exists(self.path("nbest", "sums.json")):
            return
        names = [os.path.basename(self.chunk_path(i)) for i in range(n_chunks)]
        sums = {name: sha256(self.path("nbest", name)) for name in names}
        write_json(self.path("nbest", "sums.json"), {"sha256": sums, "sentences": outcomes})
