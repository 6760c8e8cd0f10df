import filecmp
import os

import numpy as np
import pytest
from conftest import load_split

from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.pseudo.build_databin import write_databin

ALL = np.arange(160)


@pytest.fixture
def targets(data):
    gold = load_split(data).dataset.tgt
    return [np.append(gold[i].numpy()[:2], 2) for i in range(len(gold))]


def test_replaces_the_targets_and_nothing_else(data, targets, tmp_path):
    report = {"spec": "best"}
    write_databin(str(tmp_path / "best"), load_split(data), ALL, targets.__getitem__, report)
    written = load_split(tmp_path / "best").dataset
    assert [t.tolist() for t in targets] == [t.tolist() for t in written.tgt]
    assert read_json(tmp_path / "best" / "target_spec.json") == report
    replaced = {"train.src-tgt.tgt.bin", "train.src-tgt.tgt.idx"}
    same = sorted(set(os.listdir(data)) - replaced)
    assert filecmp.cmpfiles(data, tmp_path / "best", same, shallow=False) == (same, [], [])


def test_a_sentence_that_goes_takes_its_source_along(data, targets, tmp_path):
    ids = np.delete(ALL, [0, 7, 150])
    write_databin(str(tmp_path / "some"), load_split(data), ids, targets.__getitem__, {})
    gold, written = load_split(data).dataset, load_split(tmp_path / "some").dataset
    for place, id_ in enumerate(ids):
        assert written.src[place].tolist() == gold.src[id_].tolist()
        assert written.tgt[place].tolist() == targets[id_].tolist()
    assert len(written) == 157


def test_nothing_is_left_if_it_fails(data, targets, tmp_path):
    def target_of(id_):
        if id_ == 100:
            raise OSError(28, "No space left on device")
        return targets[id_]

    with pytest.raises(OSError, match="No space left on device: .*best"):
        write_databin(str(tmp_path / "best"), load_split(data), ALL, target_of, {})
    assert os.listdir(tmp_path) == []


def test_split_that_is_not_there(data):
    with pytest.raises(FileNotFoundError, match="nosuch"):
        load_split(data, "nosuch")


def test_description_tells_splits_and_dictionaries_apart(data):
    train, valid = (load_split(data, name).describe() for name in ("train", "valid"))
    assert train["data"]["sentences"] == 160
    assert train["data"] != valid["data"]
    assert train["dictionaries"] == valid["dictionaries"]
