"""Splits of data-bins: loading, describing and refusing them."""

import os
import shutil

import numpy as np
import pytest
from conftest import load_split

from fairseq_seqkd.databin import PairSplit, Split, describe_dictionary, open_split
from fairseq_seqkd.io.files import sha256


@pytest.fixture
def copied(data, tmp_path):
    """A copy of the data-bin."""
    return shutil.copytree(data, tmp_path / "data")


def without_targets(databin):
    """Remove the targets of a data-bin's training split."""
    for suffix in ("bin", "idx"):
        os.unlink(databin / f"train.src-tgt.tgt.{suffix}")
    return databin


class TestPairSplit:
    def test_has_sources_and_gold_targets(self, split):
        assert len(split) == 160
        assert split.has_gold and not split.is_source_only
        assert (split.prefix, split.languages) == ("train.src-tgt", ["src", "tgt"])

    def test_without_targets_it_has_sources_only(self, copied, split):
        found = load_split(without_targets(copied))
        assert not found.has_gold and found.languages == ["src"]
        assert [s.tolist() for s in found.dataset.src] == [
            s.tolist() for s in split.dataset.src
        ]

    def test_split_that_does_not_exist(self, data):
        with pytest.raises(FileNotFoundError, match="has no binarised 'nosuch' split"):
            load_split(data, "nosuch")

    def test_a_second_file_of_the_split(self, copied, split):
        for path in copied.glob("valid.*"):
            shutil.copy(path, copied / path.name.replace("valid", "train1"))
        with pytest.raises(
            ValueError, match="has train1 files, which fairseq appends to train"
        ):
            next(PairSplit.load_shards(split.task, str(copied), "train", "src", "tgt"))
        # Each file by itself can be loaded, as evaluate does with several test sets.
        assert len(load_split(copied)) == 160
        assert len(load_split(copied, "train1")) == 24

    def test_description_identifies_splits_and_dictionaries(self, data):
        train, valid = (load_split(data, name).describe() for name in ("train", "valid"))
        assert train["data"]["sentences"] == 160
        assert train["data"] != valid["data"]
        assert train["dictionaries"] == valid["dictionaries"]
        names = [f"train.src-tgt.{side}.bin" for side in ("src", "tgt")]
        assert train["data"]["sha256"] == {name: sha256(data / name) for name in names}


class TestOlderFormat:
    """``--dataset-impl cached`` and ``lazy``: the same sentences and the same identity."""

    def test_of_pairs(self, older, split):
        found = load_split(older)
        assert found.describe() == split.describe()
        for id_ in (159, 0, 42, 6):
            for side in ("source", "target"):
                assert found.dataset[id_][side].tolist() == split.dataset[id_][side].tolist()

    def test_for_scoring(self, older, data, teacher):
        found, expected = (
            Split.load_for_scoring(str(teacher), str(folder), "train")
            for folder in (older, data)
        )
        assert found.describe() == expected.describe()
        assert found.dataset[42]["target"].tolist() == expected.dataset[42]["target"].tolist()

    def test_other_sentences_are_other_data(self, older, split):
        assert load_split(older, "valid").describe()["data"] != split.describe()["data"]


class TestOpenSplit:
    @pytest.mark.parametrize(
        "languages, expected",
        [
            ((None, None), ("src", "tgt")),
            (("src", None), ("src", "tgt")),
            ((None, "src"), ("tgt", "src")),
            (("tgt", "src"), ("tgt", "src")),
        ],
    )
    def test_languages_are_inferred_from_the_file_names(self, data, languages, expected):
        split = open_split(str(data), "train", *languages)
        assert (split.source_lang, split.target_lang) == expected
        assert (split.task.cfg.source_lang, split.task.cfg.target_lang) == expected
        assert split.prefix == "train.src-tgt" and len(split) == 160

    def test_its_task_has_the_dictionaries(self, data):
        split = open_split(str(data), "train")
        assert split.dataset.src_dict is split.task.source_dictionary
        assert split.dataset.tgt_dict is split.task.target_dictionary

    def test_two_language_pairs(self, copied):
        for path in copied.glob("valid.*"):
            shutil.copy(path, copied / path.name.replace("src-tgt", "src-xx"))
        message = r"cannot be inferred from its files \(found \['src-tgt', 'src-xx'\]\): give"
        with pytest.raises(ValueError, match=message):
            open_split(str(copied), "train")
        assert open_split(str(copied), "train", target_lang="tgt").source_lang == "src"

    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nosuch': expected a data-bin"):
            open_split(str(tmp_path / "nosuch"), "train")

    def test_no_dictionary(self, copied):
        os.unlink(copied / "dict.tgt.txt")
        with pytest.raises(
            FileNotFoundError, match="has no dict.tgt.txt. .*copy the teacher's"
        ):
            open_split(str(copied), "train")

    def test_two_data_bins(self, data):
        with pytest.raises(ValueError, match="found 2 separated by colons"):
            open_split(f"{data}:{data}", "train")


class TestLoadForScoring:
    def test_loads_what_the_task_loads(self, data, teacher, split):
        found = Split.load_for_scoring(str(teacher), str(data), "train")
        targets = [found.dataset[i]["target"].tolist() for i in range(len(found))]
        assert targets == [tokens.tolist() for tokens in split.dataset.tgt]

    def test_sort_keys_are_targets_then_sources(self, data, teacher):
        found = Split.load_for_scoring(str(teacher), str(data), "train")
        sizes = list(zip(found.dataset.tgt_sizes.tolist(), found.dataset.src_sizes.tolist()))
        order = np.argsort(found.length_sort_keys(), kind="stable").tolist()
        assert order == sorted(range(160), key=lambda id_: sizes[id_])
        assert found.target_tokens([0, 2]) == sizes[0][0] + sizes[2][0]
        assert found.token_counts().tolist() == [sum(both) for both in sizes]

    def test_description_identifies_data_and_dictionary(self, data, teacher):
        found = Split.load_for_scoring(str(teacher), str(data), "valid").describe()
        assert found["data"]["split"] == "valid" and found["data"]["sentences"] == 24
        names = [f"valid.src-tgt.{side}.bin" for side in ("src", "tgt")]
        assert found["data"]["sha256"] == {name: sha256(data / name) for name in names}
        assert found["dictionary"]["symbols"] == 336

    def test_no_split(self, data, teacher):
        with pytest.raises(FileNotFoundError, match="has no split 'dev'"):
            Split.load_for_scoring(str(teacher), str(data), "dev")

    def test_no_targets(self, copied, teacher):
        with pytest.raises(ValueError, match="has no targets that the teacher could score"):
            Split.load_for_scoring(str(teacher), str(without_targets(copied)), "train")


def test_a_dictionary_is_its_symbols_in_order(split):
    dictionary, other = split.dataset.tgt_dict, split.dataset.src_dict
    assert describe_dictionary(dictionary) == describe_dictionary(dictionary)
    assert describe_dictionary(dictionary)["symbols"] == len(dictionary)
    assert describe_dictionary(dictionary) != describe_dictionary(other)
