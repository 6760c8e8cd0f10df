"""The sentences of one finished cache: where their rows are, and whether they are undamaged."""

import numpy as np

from fairseq_seqkd.cache.repeats import load_repeats
from fairseq_seqkd.cache.store import SentenceTopK, hash_of, record_dtype


class CachedSentences:
    """An index of a cache by sentence id; the rows stay on disk, memory-mapped.

    Attributes:
        scores: (sentences,) the means of their targets' log-probabilities, in nats; NaN of
            those that are too long for the teacher

    Args:
        store: `DistributionCache` with all its chunks
    Raises:
        ValueError: a chunk is damaged
    """

    def __init__(self, store):
        self.store = store
        manifest = store.manifest
        n_sentences = manifest["data"]["sentences"]
        self._paths = [path for _, path in sorted(store.chunks.find().items())]
        self._is_verified = [False] * len(self._paths)
        self._rows = []
        self._no_rows = np.empty(0, record_dtype(manifest["top_k"], manifest["vocabulary"]))
        self._chunk = np.full(n_sentences, -1, np.int32)
        self._begin = np.zeros(n_sentences, np.int64)
        self._length, self._hash = (np.zeros(n_sentences, np.uint32) for _ in range(2))
        self.scores = np.full(n_sentences, np.nan, np.float32)
        for path in self._paths:
            self._add(path, *store.read_chunk(path))
        first = load_repeats(store)
        if first is not None:
            for name in ("_chunk", "_begin", "_length", "_hash", "scores"):
                setattr(self, name, getattr(self, name)[first])
        if (self._chunk < 0).any():
            self._refuse_missing(int(np.argmin(self._chunk)))

    def _add(self, path, entries, rows):
        ids, lengths = entries["id"], entries["length"]
        if ids.max(initial=0) >= len(self) or lengths.sum(dtype=np.int64) != len(rows):
            raise self.store.damaged(path, "its sentences are not those of the cache")
        self._chunk[ids] = len(self._rows)
        self._begin[ids] = np.cumsum(lengths, dtype=np.int64) - lengths
        self._length[ids], self._hash[ids] = lengths, entries["hash"]
        self.scores[ids] = entries["score"]
        self._rows.append(rows)

    def _refuse_missing(self, id_):
        for path in self._paths:
            self.store.verify(path)
        raise ValueError(
            f"--kd-cache: no chunk of {self.store.root!r} has sentence {id_}. Make the cache "
            "again: fairseq-seqkd cache with --overwrite."
        )

    def __len__(self):
        return len(self._chunk)

    def mismatch(self, id_, source, target):
        """The difference between a sentence and the cache's of that id, in words, or None.

        Raises:
            ValueError: the chunk that should have it is damaged
        """
        if id_ >= len(self):
            return f"sentence {id_} is not in it: it has those from 0 to {len(self) - 1}"
        self._verify(self._chunk[id_])
        if self._hash[id_] == hash_of(source, target):
            return None
        return (
            f"sentence {id_} has {len(source)} source and {len(target)} target tokens in this "
            f"batch, and another source, or {self._length[id_] or 'too many'} other target "
            "tokens, in the cache"
        )

    def rows_of(self, id_):
        """(positions,) rows of a sentence; none if it is too long for the teacher."""
        chunk, begin = self._chunk[id_], int(self._begin[id_])
        return self._rows[chunk][begin : begin + int(self._length[id_])]

    def copy_of(self, id_, new_id):
        """A sentence as `SentenceTopK` of another id.

        Raises:
            ValueError: its chunk is damaged
        """
        self._verify(self._chunk[id_])
        hash_, score = int(self._hash[id_]), float(self.scores[id_])
        return SentenceTopK(new_id, hash_, self.rows_of(id_), score)

    def no_rows(self):
        """(0,) rows."""
        return self._no_rows

    def _verify(self, chunk):
        """Compare a chunk with its checksum, once."""
        if not self._is_verified[chunk]:
            self.store.verify(self._paths[chunk])
            self._is_verified[chunk] = True
