"""The cache: a folder with the teacher's top k at every target position of one split.

manifest.json                 the data, teacher and settings it is made from; never changes
rows/chunk-00000-SUM.npy      two arrays in one file: an entry for each sentence of the chunk,
                              and a row for each of their target positions, in the same order;
                              SUM is the beginning of the file's SHA-256
rows/sums.json                the whole SHA-256 of every chunk, once all are there
repeats.npy                   the id of the first equal pair of every sentence; only of a split
                              with repeated pairs, of which the first has an entry and rows
"""

import io
import os
import zlib
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from fairseq_seqkd.chunked.folder import is_damaged
from fairseq_seqkd.chunked.store import ChunkedStore

# A sentence of a chunk. If it is too long for the teacher, it has length 0, no rows and the
# score NaN.
SENTENCE = np.dtype([("id", "<u4"), ("length", "<u4"), ("hash", "<u4"), ("score", "<f4")])


class SentenceTopK(NamedTuple):
    """The teacher's top k at every target position of one sentence.

    Attributes:
        id: the sentence's position in the split
        hash: the hash of its source and target, see `hash_of`
        rows: (positions,) rows of the dtype `record_dtype`; empty if the sentence is too long
            for the teacher
        score: the mean of the target tokens' log-probabilities, in nats, at temperature 1
    """

    id: int
    hash: int
    rows: np.ndarray
    score: float = np.nan


def record_dtype(k, vocab):
    """The dtype of a row: k symbols, their log-probabilities, and that of all other symbols.

    Args:
        k: symbols per position
        vocab: the size of the vocabulary, which decides the bytes of a symbol
    """
    symbol = next(f"<u{size}" for size in (1, 2, 4) if vocab <= 256**size)
    return np.dtype(
        [("symbols", symbol, (k,)), ("lprobs", "<f2", (k,)), ("tail_lprobs", "<f2")]
    )


def pairs_of(sample, pad):
    """Yield (id, source, target) of each sentence of a batch, without padding.

    Args:
        sample: a batch as fairseq collates it
        pad: the padding symbol
    Yields:
        an id, and two (length,) arrays of token ids; the source is empty if it is not text
    """
    target = sample["target"].cpu().numpy()
    source = sample["net_input"].get("src_tokens")
    if source is None or source.is_floating_point():
        source = sample["target"][:, :0]
    for id_, *both in zip(sample["id"].tolist(), source.cpu().numpy(), target):
        yield (id_, *(tokens[tokens != pad] for tokens in both))


def hash_of(source, target):
    """A checksum of a sentence pair, two arrays of (length,) token ids."""
    source, target = (np.ascontiguousarray(tokens, dtype="<i8") for tokens in (source, target))
    return zlib.crc32(target, zlib.crc32(source))


class DistributionCache(ChunkedStore):
    """A cache of top-k distributions on disk; see `ChunkedStore`."""

    FLAG, KIND, FORMAT = "--kd-cache", "cache", 3
    FOLDER, SUFFIX = "rows", "npy"

    @property
    def n_scored(self):
        """How many sentences have entries: all, or the different ones; see ``repeats.py``."""
        manifest = self.manifest
        return manifest.get("different_pairs", manifest["data"]["sentences"])

    def _is_ours(self, entry):
        return entry.name == "repeats.npy" or super()._is_ours(entry)

    def write_chunk(self, index, sentences):
        """Write a chunk, a list of `SentenceTopK`, atomically."""
        entries = [
            (sentence.id, len(sentence.rows), sentence.hash, sentence.score)
            for sentence in sentences
        ]
        content = io.BytesIO()
        np.save(content, np.array(entries, SENTENCE))
        np.save(content, np.concatenate([sentence.rows for sentence in sentences]))
        self.chunks.write(index, content.getvalue())

    def read_chunk(self, path):
        """Open a chunk.

        Returns:
            (sentences,) entries of the dtype ``SENTENCE``, and (positions,) rows, which are
            memory-mapped
        Raises:
            ValueError: the file is truncated or damaged
        """
        try:
            with open(path, "rb") as file:
                sentences = np.load(file, allow_pickle=False)
                npy.read_magic(file)
                shape, _, dtype = npy.read_array_header_1_0(file)
                begin = file.tell()
            expected = begin + shape[0] * dtype.itemsize
            if sentences.dtype != SENTENCE:
                raise ValueError(f"found {sentences.dtype}, expected {SENTENCE}")
        except OSError:
            raise
        except Exception as error:  # numpy evaluates the header, which may be anything
            raise self.damaged(path, f"it cannot be read ({error})") from error
        if os.path.getsize(path) != expected:
            reason = f"it has {os.path.getsize(path)} bytes, expected {expected}"
            raise self.damaged(path, reason)
        if not shape[0]:
            return sentences, np.empty(shape, dtype)
        return sentences, np.memmap(path, dtype, "r", offset=begin, shape=shape)

    def verify(self, path):
        """Raise a ValueError if a chunk does not have the checksum in its name."""
        if is_damaged(path):
            raise self.damaged(path, "it does not have the checksum in its name")

    def damaged(self, path, reason):
        """The error for a damaged chunk."""
        return ValueError(
            f"{self.FLAG}: {path!r} is cut short or damaged: {reason}. Run fairseq-seqkd cache "
            "again with the same flags: it makes what is missing or damaged."
        )
