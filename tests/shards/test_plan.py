import numpy as np
import pytest

from fairseq_seqkd.shards import plan_chunks, share

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


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
def test_shares_cover_every_chunk_once(world_size):
    shares = [share(7, rank, world_size) for rank in range(world_size)]
    assert sorted(i for s in shares for i in s) == list(range(7))
