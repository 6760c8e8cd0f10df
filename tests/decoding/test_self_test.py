"""The compute type and batch size of a new store: what is fastest here and translates alike."""

import numpy as np
import pytest
from conftest import BEST, CTRANSLATE2, all_nbest, load_split, recipe_with

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.decoding import ctranslate2_engine, self_test
from fairseq_seqkd.decoding.self_test import Trial, fastest
from fairseq_seqkd.pseudo.generate import open_store, translate

WORDS = {i: list(range(10 + i, 30 + i)) for i in range(20)}
OTHERS = {i: tokens[::-1] for i, tokens in WORDS.items()}


@pytest.mark.parametrize(
    "trials, taken",
    [
        ([Trial("float32", 100, WORDS)], "float32"),
        ([Trial("float32", 100, WORDS), Trial("int8", 150, WORDS)], "int8"),
        ([Trial("float32", 100, WORDS), Trial("int8", 104, WORDS)], "float32"),
        ([Trial("float32", 100, WORDS), Trial("int8", 900, OTHERS)], "float32"),
        ([Trial(512, 100, WORDS), Trial(256, 110, WORDS), Trial(1024, 120, WORDS)], 1024),
        ([Trial(512, 100, WORDS), Trial(256, 120, WORDS), Trial(1024, 110, WORDS)], 256),
    ],
)
def test_the_fastest_that_translates_alike(trials, taken, caplog):
    with caplog.at_level("INFO"):
        assert fastest("compute_type", trials) == taken
    assert caplog.text.count("self-test on 20 sentences") == len(trials) - 1
    assert caplog.messages[-1] == f"compute type: {taken}"


@pytest.fixture
def tested(monkeypatch):
    """A self-test of small stores, by a clock that makes int8 and large batches fast."""
    monkeypatch.setattr(self_test, "LEAST_SENTENCES", 100)
    monkeypatch.setattr(self_test, "_ONE_IN", 4)
    speeds = {"float32": 1, "int8": 2, 256: 1, 512: 2, 1024: 4}
    trial = self_test._trial
    seen = []

    def timed(value, engine, dataset, ids):
        seen.append((value, len(ids)))
        return trial(value, engine, dataset, ids)._replace(speed=speeds[value])

    monkeypatch.setattr(self_test, "_trial", timed)
    monkeypatch.setattr(self_test, "_LEAST_BLEU", 0)  # of a teacher that has learned little
    return seen


@CTRANSLATE2
def test_a_store_notes_what_is_fastest(data, teacher, loaded, tmp_path, tested, caplog):
    split = load_split(data)
    recipe = recipe_with(teacher, loaded, name="auto")
    with caplog.at_level("INFO"):
        store = open_store(str(tmp_path / "store"), split, BEST, recipe)
    assert tested == [("float32", 40), ("int8", 40), (512, 40), (256, 40), (1024, 40)]
    engine = store.manifest["engine"]
    assert (engine["compute_type"], engine["max_tokens"]) == ("int8", 1024)
    assert "compute type: float32 1/s, int8 2/s, BLEU" in caplog.text
    # Other workers, and those that go on later, follow the manifest and test nothing.
    again = open_store(
        str(tmp_path / "store"), split, BEST, recipe_with(teacher, loaded, name="auto")
    )
    translate(again, split, recipe, Worker())
    assert len(tested) == 5 and sorted(all_nbest(store.root)) == list(range(160))
    with pytest.raises(ValueError, match="compute_type: found int8, expected float32"):
        asked = recipe_with(teacher, loaded, name="auto", compute_type="float32")
        open_store(str(tmp_path / "store"), split, BEST, asked)


@CTRANSLATE2
def test_what_is_given_stays(data, teacher, loaded, tmp_path, tested):
    recipe = recipe_with(teacher, loaded, name="auto", compute_type="float32", max_tokens=300)
    store = open_store(str(tmp_path / "store"), load_split(data), BEST, recipe)
    assert tested == [] and store.manifest["engine"]["max_tokens"] == 300


@CTRANSLATE2
def test_a_processor_that_lacks_the_type(data, teacher, loaded, tmp_path, monkeypatch):
    """CTranslate2 would fall back to another type, within the same store."""
    split = load_split(data)
    recipe = recipe_with(teacher, loaded, name="auto", compute_type="int8")
    store = open_store(str(tmp_path / "store"), split, BEST, recipe)
    monkeypatch.setattr(ctranslate2_engine, "compute_types_of", lambda device: ["float32"])
    message = "begun with the compute type int8, and this device has float32: .* machine"
    with pytest.raises(ValueError, match=message):
        translate(store, split, recipe, Worker())
    assert not np.any(store.chunks.find())
