"""fairseq's older format: any sentence, in any process, the same checksums as mmap."""

import pickle

import numpy as np
import pytest
import torch
from fairseq.data import ConcatDataset, StripTokenDataset, TruncateDataset, indexed_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import PROCESSES, read_in_three_forks

from fairseq_seqkd.io.files import sha256
from fairseq_seqkd.models.datasets import (
    RandomAccessDataset,
    copy_as_mmap,
    data_sha256,
    is_older_format,
    random_access,
    write_mmap,
)


def write_older(prefix, sentences):
    """Write sentences as ``fairseq-preprocess --dataset-impl cached`` does."""
    builder = indexed_dataset.make_builder(f"{prefix}.bin", impl="cached")
    for tokens in sentences:
        builder.add_item(torch.tensor(tokens, dtype=torch.int32))
    builder.finalize(f"{prefix}.idx")
    return str(prefix)


@given(
    st.lists(st.lists(st.integers(0, 65000), min_size=1, max_size=9), min_size=1, max_size=9),
    st.sampled_from([65000 + 1, 70000, None]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_sentences_and_checksums_are_those_of_mmap(tmp_path_factory, sentences, vocab, random):
    folder = tmp_path_factory.mktemp("written")
    older = write_older(folder / "older", sentences)
    write_mmap(str(folder / "mmap"), map(np.array, sentences), vocab)
    assert is_older_format(older) and not is_older_format(str(folder / "mmap"))
    assert data_sha256(f"{older}.bin", vocab) == sha256(folder / "mmap.bin")
    copy_as_mmap(older, str(folder / "copy"), vocab)
    for suffix in ("bin", "idx"):
        assert sha256(folder / f"copy.{suffix}") == sha256(folder / f"mmap.{suffix}")
    dataset = RandomAccessDataset(older, fix_lua_indexing=True)
    for index in random.sample(range(len(sentences)), len(sentences)):
        assert dataset[index].tolist() == sentences[index]
        assert dataset[index].dtype == torch.int64


SENTENCES = [[i, *range(i % 7), 2] for i in range(300)]


@pytest.fixture
def older(tmp_path):
    """The prefix of such files."""
    return write_older(tmp_path / "older", SENTENCES)


def test_processes_that_were_forked_do_not_disturb_each_other(older):
    """Of fairseq's own reader they would share the position in the file."""
    queue = PROCESSES.Queue()
    # Not forked from this process, which may have threads of other tests.
    process = PROCESSES.Process(target=read_in_three_forks, args=(older, queue))
    process.start()
    first, sentences = queue.get(timeout=120)
    process.join()
    assert first == SENTENCES[5] and sentences == SENTENCES


def test_pickled_it_opens_the_file_anew(older):
    dataset = RandomAccessDataset(older, fix_lua_indexing=True)
    assert dataset[5].tolist() == SENTENCES[5]
    assert pickle.loads(pickle.dumps(dataset))[7].tolist() == SENTENCES[7]


def test_a_file_that_is_cut_short(older):
    with open(f"{older}.bin", "r+b") as file:
        file.truncate(400)
    with pytest.raises(ValueError, match="older.bin' is cut short: sentence 299 ends at byte"):
        RandomAccessDataset(older, fix_lua_indexing=True)[299]


def test_inside_other_data_sets(older):
    """Those that --truncate-source, and a second training file, put around it."""
    one = indexed_dataset.make_dataset(older, "cached", fix_lua_indexing=True)
    other = indexed_dataset.make_dataset(older, "lazy", fix_lua_indexing=True)
    truncated = TruncateDataset(StripTokenDataset(one, 2), 4)
    found = random_access(ConcatDataset([truncated, other]))
    assert found[299].tolist() == SENTENCES[299][:-1][:4]
    assert found[300 + 8].tolist() == SENTENCES[8]
