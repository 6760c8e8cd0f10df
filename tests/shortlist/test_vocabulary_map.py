import os
import shutil

import numpy as np
import pytest
from conftest import CTRANSLATE2, load_split
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.databin import open_split
from fairseq_seqkd.decoding.agreement import GREEDY
from fairseq_seqkd.decoding.ctranslate2_engine import CTranslate2Engine
from fairseq_seqkd.models.ctranslate2 import convert_teacher
from fairseq_seqkd.shortlist import vocabulary_map
from fairseq_seqkd.shortlist.source import load_shortlist
from fairseq_seqkd.shortlist.vocabulary_map import VocabularyMap

symbols = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=4)
candidates = st.lists(symbols, max_size=4)


@given(candidates, st.dictionaries(symbols, candidates, max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_written_map_is_read_again(tmp_path_factory, always, likely):
    path = str(tmp_path_factory.getbasetemp() / "round-trip.txt")
    VocabularyMap(always, likely).write(path)
    assert VocabularyMap.load(path) == (always, likely)


@pytest.fixture(scope="module")
def train(data):
    return open_split(str(data), "train")


def test_what_is_counted(train):
    found, pairs = VocabularyMap.count(train, 3)
    source, target = train.task.source_dictionary, train.task.target_dictionary
    assert pairs == len(train) and 0 < len(found.always) <= 100
    assert list(found.candidates) == source.symbols[source.nspecial :]
    for symbol, likely in found.candidates.items():
        assert len(likely) <= 3 + (symbol in target.indices)
        assert set(likely) <= set(target.symbols[target.nspecial :])
        assert symbol in likely or symbol not in target.indices
        assert not set(likely) - {symbol} & set(found.always)
    counts = np.bincount(np.concatenate([tokens[:-1] for tokens in train.dataset.tgt]))
    assert found.always[0] == target[int(counts[target.nspecial :].argmax()) + target.nspecial]


def test_of_many_pairs_some_are_counted(train, monkeypatch):
    monkeypatch.setattr(vocabulary_map, "_PAIRS", 20)
    assert VocabularyMap.count(train)[1] == 20


@CTRANSLATE2
def test_ctranslate2_says_only_what_is_allowed(train, data, loaded, tmp_path):
    """Each sentence alone: in a batch the symbols of all sources are allowed."""
    allowed, _ = VocabularyMap.count(train, 2)
    allowed = allowed._replace(always=allowed.always[:3])
    convert_teacher(loaded, str(tmp_path / "model"))
    settings_ = {"compute_type": "float32", "max_tokens": 512}
    dictionaries = train.task.source_dictionary, train.task.target_dictionary
    device, test = loaded.device, load_split(data, "test").dataset

    def translations():
        where = str(tmp_path / "model"), GREEDY, settings_, device, 1, dictionaries
        engine = CTranslate2Engine(*where, keep_unfinished=True)
        return [next(iter(engine(test, [i])))[1][0][0].tolist() for i in range(len(test))]

    before = translations()
    allowed.write(str(tmp_path / "model" / "model" / "vmap.txt"))
    after = translations()
    assert before != after
    source, target = dictionaries
    for i, tokens in enumerate(after):
        likely = {*allowed.always, target.eos_word, target.unk_word}
        for token in test.src[i].tolist():
            likely.update(allowed.candidates.get(source[token], ()))
        assert {target[token] for token in tokens} <= likely


class TestSources:
    def test_a_store_is_its_best_databin(self, train, store):
        found = load_shortlist(str(store), train.task)
        assert found.path == os.path.join(store, "best") and found.pairs == len(train)
        assert str(found).startswith("shortlist of ")

    def test_a_finished_map_and_its_folder(self, train, tmp_path):
        expected, _ = VocabularyMap.count(train)
        expected.write(str(tmp_path / "vmap.txt"))
        for path in (tmp_path, tmp_path / "vmap.txt"):
            assert load_shortlist(str(path), train.task).map == expected


class TestErrors:
    @pytest.fixture
    def fails(self, train):
        def fails(path, size=None, error=ValueError):
            with pytest.raises(error) as found:
                load_shortlist(str(path), train.task, size)
            return str(found.value)

        return fails

    @pytest.mark.parametrize("line, side", [("other\tx", "source"), ("\tother", "target")])
    def test_a_map_of_another_vocabulary(self, train, fails, tmp_path, line, side):
        found, _ = VocabularyMap.count(train)
        found.write(str(tmp_path / "vmap.txt"))
        with open(tmp_path / "vmap.txt", "a") as file:
            file.write(line + "\n")
        message = fails(tmp_path)
        assert f"map of another vocabulary: it has the {side} symbol 'other'" in message
        assert f"expected symbols of the student's {side} dictionary" in message

    def test_a_file_of_another_kind(self, fails, text):
        assert "line 1 of " in (message := fails(text / "test.src")) and "no tab" in message

    def test_a_size_for_a_finished_map(self, train, fails, tmp_path):
        VocabularyMap.count(train)[0].write(str(tmp_path / "vmap.txt"))
        assert "--shortlist-size is for counting" in fails(tmp_path, size=5)

    def test_a_databin_of_other_dictionaries(self, fails, data, tmp_path):
        shutil.copytree(data, tmp_path / "other")
        lines = (data / "dict.tgt.txt").read_text().splitlines()
        lines[3] = "changed 1"
        (tmp_path / "other" / "dict.tgt.txt").write_text("\n".join(lines) + "\n")
        message = fails(tmp_path / "other")
        assert "at index 7 it has 'changed', the student '" in message

    def test_nothing_there(self, fails, tmp_path):
        assert "there is no " in fails(tmp_path / "no", error=FileNotFoundError)

    def test_a_store_without_a_databin(self, fails, store, tmp_path):
        shutil.copy(store / "manifest.json", tmp_path)
        assert "has no data-bin yet, expected best" in fails(tmp_path)
