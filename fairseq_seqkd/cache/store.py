"""The cache: one folder with the teacher's top k at every target position of one split.

manifest.json                 what it was made from and how; never changes
rows/chunk-00000-SUM.npy      two arrays one after the other: a line for each sentence of the
                              chunk, and a row for each of their target positions, in the same
                              order; SUM is the beginning of the file's SHA-256
rows/sums.json                the whole SHA-256 of every chunk, once all are there
"""

import io
import os
import zlib
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from fairseq_seqkd.chunked.store import ChunkedStore

# A sentence of a chunk. One that the teacher cannot take has length 0 and no rows.
SENTENCE = np.dtype([("id", "<u4"), ("length", "<u4"), ("hash", "<u4")])


class SentenceRows(NamedTuple):
    """The teacher's top k at every target position of one sentence.

    Attributes:
        id: of the sentence
        hash: of its source and target, see `hash_of`
        rows: (positions,) as `row_of` says; none if the teacher cannot take the sentence
    """

    id: int
    hash: int
    rows: np.ndarray

    @property
    def n_tokens(self):
        """How many target positions have a row."""
        return len(self.rows)


def row_of(k, vocab):
    """The dtype of a position's row: k symbols, their log-probabilities, and the rest's."""
    symbol = next(f"<u{size}" for size in (1, 2, 4) if vocab <= 256**size)
    return np.dtype(
        [("symbols", symbol, (k,)), ("lprobs", "<f2", (k,)), ("tail_lprobs", "<f2")]
    )


def pairs_of(sample, pad):
    """Yield (id, source, target) of a batch's sentences, without padding.

    Args:
        sample: as fairseq collates it
        pad: the padding symbol
    Returns:
        ids; (length,) arrays of tokens, nothing for a source that is not made of symbols
    """
    target = sample["target"].cpu().numpy()
    source = sample["net_input"].get("src_tokens")
    if source is None or source.is_floating_point():
        source = sample["target"][:, :0]
    for id_, *both in zip(sample["id"].tolist(), source.cpu().numpy(), target):
        yield (id_, *(tokens[tokens != pad] for tokens in both))


def hash_of(source, target):
    """A checksum of (length,) tokens, which tells a sentence pair from another one."""
    source, target = (np.ascontiguousarray(tokens, dtype="<i8") for tokens in (source, target))
    return zlib.crc32(target, zlib.crc32(source))


class DistributionCache(ChunkedStore):
    """A cache on disk; see `ChunkedStore`."""

    FLAG, KIND, FORMAT = "--kd-cache", "cache", 2
    FOLDER, SUFFIX = "rows", "npy"

    def write_chunk(self, index, sentences):
        """Write a list of `SentenceRows`; the chunk is there whole or not at all."""
        lines = [(one.id, len(one.rows), one.hash) for one in sentences]
        content = io.BytesIO()
        np.save(content, np.array(lines, SENTENCE))
        np.save(content, np.concatenate([one.rows for one in sentences]))
        self.chunks.write(index, content.getvalue())

    def read_chunk(self, path):
        """A chunk's sentences and its rows, which stay on disk until they are looked at.

        Raises:
            ValueError: the file is cut short, or is none of a cache
        """
        try:
            with open(path, "rb") as file:
                sentences = np.load(file, allow_pickle=False)
                npy.read_magic(file)
                shape, _, dtype = npy.read_array_header_1_0(file)
                begin = file.tell()
            expected = begin + shape[0] * dtype.itemsize
        except (ValueError, EOFError) as error:
            raise self._damaged(path, f"it cannot be read ({error})") from error
        if os.path.getsize(path) != expected:
            found = f"it has {os.path.getsize(path)} bytes, expected {expected}"
            raise self._damaged(path, found)
        if not shape[0]:
            return sentences, np.empty(shape, dtype)
        return sentences, np.memmap(path, dtype, "r", offset=begin, shape=shape)

    def _damaged(self, path, found):
        return ValueError(
            f"{self.FLAG}: {path!r} is cut short or damaged: {found}. Run fairseq-seqkd cache "
            "again with the same flags: it makes what is missing or damaged."
        )
