import gzip
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from conftest import BEST, LSTM, all_nbest, load_split, recipe_with, tokens_of, train
from processes import fairseq

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.databin import open_split
from fairseq_seqkd.decoding.ctranslate2_engine import CTranslate2Engine
from fairseq_seqkd.decoding.engines import build_engine, resolve_engine
from fairseq_seqkd.decoding.fairseq_engine import FairseqEngine
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.pseudo.generate import open_store, translate
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.teacher import load_teacher

ctranslate2 = pytest.importorskip("ctranslate2")
DEFAULTS = dict.fromkeys(("name", "compute_type", "max_tokens"))
SHARED = Path(__file__).resolve().parents[3] / "shared" / "multi30k"


@pytest.fixture
def build(loaded, data, tmp_path):
    """build(search, **settings): the engine, and the training split's data set."""

    def call(search, **requested):
        dataset = load_split(data).dataset
        converted = (str(tmp_path / "converted"), lambda device, dtype: loaded)
        requested = {**DEFAULTS, "name": "ctranslate2", **requested}
        settings = resolve_engine(requested, search, "cpu", *converted)
        dictionaries = (dataset.src_dict, dataset.tgt_dict)
        engine = build_engine(settings, search, "cpu", 1, *converted, dictionaries)
        return engine, dataset

    return call


def plain(nbest_lists):
    """{id: (lists of token ids, scores)} of an engine's result."""
    return {i: ([t.tolist() for t, _ in h], [s for _, s in h]) for i, h in nbest_lists}


IDS = np.array([i for i in range(60) if i not in (6, 10)])


@pytest.mark.parametrize("search", [SearchOptions(), SearchOptions(4, 4, lenpen=0.6)])
def test_agrees_with_fairseq(build, loaded, search):
    engine, dataset = build(search)
    ours = plain(engine(dataset, IDS))
    theirs = plain(FairseqEngine(loaded, search)(dataset, IDS))
    assert sorted(ours) == sorted(theirs) == IDS.tolist()
    finished = [id_ for id_ in IDS if ours[id_][0] and theirs[id_][0]]
    assert len(finished) > 30
    for id_ in finished:
        assert ours[id_][0][0] == theirs[id_][0][0]
        # fairseq's softmax gives a little mass to symbols that are not allowed.
        assert ours[id_][1][0] == pytest.approx(theirs[id_][1][0], rel=0.02)


@pytest.mark.parametrize("longest", [6, 7, 8])
def test_cuts_where_fairseq_cuts(build, loaded, longest):
    search = SearchOptions(1, 1, max_len_b=longest)
    engine, dataset = build(search)
    ours = plain(engine(dataset, IDS))
    theirs = plain(FairseqEngine(loaded, search)(dataset, IDS))
    assert {i: one[0] for i, one in ours.items()} == {i: one[0] for i, one in theirs.items()}
    lengths = {len(tokens) for one in ours.values() for tokens in one[0]}
    assert max(lengths) <= longest and any(not one[0] for one in ours.values())


def test_does_not_depend_on_batches_or_threads(build, data, tmp_path):
    search = SearchOptions(3, 3)
    small, dataset = build(search, max_tokens=20)
    large, _ = build(search, max_tokens=2000)
    small, large = plain(small(dataset, IDS)), plain(large(dataset, IDS))
    assert {i: one[0] for i, one in small.items()} == {i: one[0] for i, one in large.items()}


def test_unknown_words_of_the_source(build, loaded):
    search = SearchOptions()
    engine, dataset = build(search)
    unk = dataset.src_dict.unk()
    dataset.src = [torch.tensor([unk, 7, unk, 9, 2]), torch.tensor([8, unk, 2])]
    dataset.tgt = [torch.tensor([5, 2])] * 2
    dataset.src_sizes = np.array([5, 3])
    ours, theirs = (
        plain(one(dataset, np.arange(2))) for one in (engine, FairseqEngine(loaded, search))
    )
    assert (
        [ours[i][0][:1] for i in range(2)] == [theirs[i][0][:1] for i in range(2)] != [[], []]
    )


def test_unfinished_hypotheses_are_left_out(build):
    engine, dataset = build(SearchOptions(max_len_b=2))
    for _, hypotheses in engine(dataset, IDS):
        assert all(tokens[-1] == 2 and len(tokens) <= 3 for tokens, _ in hypotheses)
    assert any(not hypotheses for _, hypotheses in engine(dataset, IDS))


def test_converted_once_and_kept(build, tmp_path):
    build(SearchOptions())
    model = tmp_path / "converted" / "model" / "model.bin"
    before = model.stat().st_mtime_ns
    build(SearchOptions())
    assert model.stat().st_mtime_ns == before
    assert os.listdir(tmp_path) == ["converted"]


def test_limits_are_the_teachers(build, loaded):
    engine, _ = build(SearchOptions())
    assert engine.max_source_positions == loaded.max_source_positions() == 30
    assert engine.max_target_positions == 60


@pytest.mark.parametrize("compute_type", ["float32", "int8"])
def test_a_store_records_its_engine(data, teacher, loaded, tmp_path, compute_type):
    recipe = recipe_with(teacher, loaded, name="auto", compute_type=compute_type)
    split = load_split(data)
    store = open_store(str(tmp_path / "store"), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    assert store.manifest["engine"] == {
        "name": "ctranslate2",
        "version": ctranslate2.__version__,
        "compute_type": compute_type,
        "max_tokens": 512,
    }
    assert sorted(all_nbest(store.root)) == list(range(160))
    # To go on, neither the checkpoint nor the model is needed.
    os.unlink(store.chunks.find()[0])
    again = Recipe(str(teacher), load_teacher=None, engine={"name": "auto"})
    translate(store, split, again, Worker())
    assert sorted(all_nbest(store.root)) == list(range(160))


class TestUnavailable:
    def resolve(self, tmp_path, teacher, name=None, search=None, **requested):
        """The settings of the engine that is taken for a teacher."""
        requested = {**DEFAULTS, "name": name, **requested}
        search = search or SearchOptions()
        return resolve_engine(
            requested, search, "cpu", str(tmp_path / "model"), lambda device, dtype: teacher
        )

    @pytest.fixture(scope="class")
    def lstm(self, data, tmp_path_factory):
        folder = tmp_path_factory.mktemp("lstm")
        loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", 1]
        train(data, folder, *loss, model=LSTM)
        return load_teacher(str(folder / "checkpoint_last.pt"))

    def test_a_model_that_it_does_not_support(self, lstm, tmp_path, caplog):
        with caplog.at_level("INFO"):
            assert self.resolve(tmp_path, lstm)["name"] == "fairseq"
        assert "not with CTranslate2: it cannot convert" in caplog.text
        assert "'lstm'" in caplog.text
        with pytest.raises(
            ValueError, match="--engine ctranslate2: it cannot convert .*'lstm'"
        ):
            self.resolve(tmp_path, lstm, "ctranslate2")
        assert os.listdir(tmp_path) == []

    def test_an_ensemble(self, teacher, tmp_path):
        both = load_teacher(f"{teacher}:{teacher}")
        assert self.resolve(tmp_path, both)["name"] == "fairseq"
        with pytest.raises(ValueError, match="an ensemble of 2 models"):
            self.resolve(tmp_path, both, "ctranslate2")

    def test_sampling(self, loaded, tmp_path):
        search = SearchOptions(1, 1, sampling=True)
        assert self.resolve(tmp_path, loaded, search=search)["name"] == "fairseq"
        with pytest.raises(ValueError, match="--engine ctranslate2: sampling"):
            self.resolve(tmp_path, loaded, "ctranslate2", search)

    def test_not_installed(self, loaded, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "ctranslate2", None)
        assert self.resolve(tmp_path, loaded)["name"] == "fairseq"
        with pytest.raises(ValueError, match="not installed: pip install ctranslate2"):
            self.resolve(tmp_path, loaded, "ctranslate2")

    @pytest.mark.parametrize("name", ["ctranslate2", "fairseq"])
    def test_a_compute_type_that_it_does_not_have(self, loaded, tmp_path, name):
        with pytest.raises(ValueError, match="the compute type is 'float8'"):
            self.resolve(tmp_path, loaded, name, compute_type="float8")

    def test_another_version_than_the_store_was_begun_with(self, build, monkeypatch):
        monkeypatch.setattr(ctranslate2, "__version__", "1.0")
        with pytest.raises(ValueError, match="begun with CTranslate2 0.1, found 1.0"):
            settings = {"name": "ctranslate2", "version": "0.1"}
            CTranslate2Engine.build(settings, None, "cpu", 1, "", None, None)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the Multi30k teacher is not here")
def test_on_real_sentences(tmp_path):
    """The two engines agree on 300 sentences of Multi30k's validation set."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(SHARED / "spm.model"))
    for lang in ("de", "en"):
        with gzip.open(SHARED / f"val.{lang}.gz", "rt", encoding="utf-8") as lines:
            cut = [" ".join(pieces.encode(line.strip(), out_type=str)) for line in lines][:300]
        (tmp_path / f"val.{lang}").write_text("\n".join(cut) + "\n", encoding="utf-8")
    joined = ["--joined-dictionary", "--srcdict", SHARED / "dict.txt"]
    pair = ["-s", "de", "-t", "en", "--trainpref", tmp_path / "val"]
    fairseq("preprocess", *pair, *joined, "--destdir", tmp_path / "data-bin")
    split = open_split(str(tmp_path / "data-bin"), "train")
    teacher = load_teacher(str(SHARED / "teacher.pt"), student_task=split.task)
    lists = []
    for name in ("fairseq", "ctranslate2"):
        recipe = recipe_with(SHARED / "teacher.pt", teacher, name=name)
        store = open_store(str(tmp_path / name), split, BEST, recipe)
        translate(store, split, recipe, Worker())
        lists.append({i: tokens_of(one) for i, one in all_nbest(store.root).items()})
    ours, theirs = lists
    assert sum(ours[i][0] == theirs[i][0] for i in range(300)) >= 0.995 * 300
    common = sum(hypothesis in theirs[i] for i in range(300) for hypothesis in ours[i])
    assert common >= 0.95 * 5 * 300
