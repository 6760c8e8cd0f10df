import filecmp
import os

import numpy as np
import pytest
from conftest import load_split

from fairseq_seqkd.pseudo.databin import write_databin
from fairseq_seqkd.shards import read_json


@pytest.fixture
def targets(data):
    gold = load_split(data).dataset.tgt
    return [np.append(gold[i].numpy()[:2], 2) for i in range(len(gold))]


def test_replaces_the_targets_and_nothing_else(data, targets, tmp_path):
    write_databin(str(tmp_path / "best"), load_split(data), targets, {"selection": "best"})
    written = load_split(tmp_path / "best").dataset
    assert [t.tolist() for t in targets] == [t.tolist() for t in written.tgt]
    assert read_json(tmp_path / "best" / "selection.json") == {"selection": "best"}
    replaced = {"train.src-tgt.tgt.bin", "train.src-tgt.tgt.idx"}
    same = sorted(set(os.listdir(data)) - replaced)
    assert filecmp.cmpfiles(data, tmp_path / "best", same, shallow=False) == (same, [], [])


def test_number_of_targets_must_fit(data, targets, tmp_path):
    with pytest.raises(ValueError, match="159 targets for the 160 sentences of 'train'"):
        write_databin(str(tmp_path / "best"), load_split(data), targets[1:], {})
    assert os.listdir(tmp_path) == []


def test_split_that_is_not_there(data):
    with pytest.raises(FileNotFoundError, match="nosuch"):
        load_split(data, "nosuch")


def test_description_tells_splits_and_dictionaries_apart(data):
    train, valid = (load_split(data, name).describe() for name in ("train", "valid"))
    assert train["data"]["sentences"] == 160
    assert train["data"] != valid["data"]
    assert train["dictionaries"] == valid["dictionaries"]
