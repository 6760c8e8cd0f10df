import filecmp
import os

import numpy as np
import pytest
from fairseq.data import Dictionary

from fairseq_seqkd.pseudo.corpus import GoldSplit
from fairseq_seqkd.pseudo.databin import write_databin
from fairseq_seqkd.shards import read_json


def load(folder, name="train"):
    dictionaries = [Dictionary.load(str(folder / f"dict.{s}.txt")) for s in ("src", "tgt")]
    return GoldSplit.load(str(folder), name, "src", "tgt", *dictionaries, True)


@pytest.fixture
def targets(data):
    gold = load(data).dataset.tgt
    return [np.append(gold[i].numpy()[:2], 2) for i in range(len(gold))]


def test_replaces_the_targets_and_nothing_else(data, targets, tmp_path):
    write_databin(str(tmp_path / "best"), load(data), targets, {"selection": "best"})
    written = load(tmp_path / "best").dataset
    assert [t.tolist() for t in targets] == [t.tolist() for t in written.tgt]
    assert read_json(tmp_path / "best" / "selection.json") == {"selection": "best"}
    replaced = {"train.src-tgt.tgt.bin", "train.src-tgt.tgt.idx"}
    same = sorted(set(os.listdir(data)) - replaced)
    assert filecmp.cmpfiles(data, tmp_path / "best", same, shallow=False) == (same, [], [])


def test_number_of_targets_must_fit(data, targets, tmp_path):
    with pytest.raises(ValueError, match="159 targets for the 160 sentences of 'train'"):
        write_databin(str(tmp_path / "best"), load(data), targets[1:], {})
    assert os.listdir(tmp_path) == []


def test_split_that_is_not_there(data):
    with pytest.raises(FileNotFoundError, match="nosuch"):
        load(data, "nosuch")


def test_description_tells_splits_and_dictionaries_apart(data):
    train, valid = (load(data, name).describe() for name in ("train", "valid"))
    assert train["data"]["sentences"] == 160
    assert train["data"] != valid["data"]
    assert train["dictionaries"] == valid["dictionaries"]
