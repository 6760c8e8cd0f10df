import numpy as np
import pytest

from fairseq_seqkd.chunked.plan import chunk_size, plan_chunks

LENGTHS = [3, 9, 1, 9, 4, 2, 7]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_every_sentence_is_in_one_chunk_longest_first(size):
    chunks = plan_chunks(LENGTHS, size)
    assert all(len(chunk) <= size for chunk in chunks)
    assert np.concatenate(chunks).tolist() == [1, 3, 6, 4, 0, 5, 2]


def test_unsigned_lengths_sort_like_any():
    lengths = np.array(LENGTHS, dtype=np.uint16)
    assert plan_chunks(lengths, 100)[0].tolist() == [1, 3, 6, 4, 0, 5, 2]


def test_nothing_gives_no_chunk():
    assert plan_chunks([], 3) == []


@pytest.mark.parametrize(
    "sentences, size", [(1, 512), (29_000, 512), (5_120_001, 513), (300_000_000, 4096)]
)
def test_large_corpora_have_larger_chunks(sentences, size):
    assert chunk_size(sentences) == size
