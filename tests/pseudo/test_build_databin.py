import os
import shutil
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import BEST, EMPTY, LONG, all_nbest, load_split, recipe_with, with_sentences
from fairseq.data import data_utils

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.io.files import atomic_directory, atomic_file, read_json, sha256
from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.pseudo.build_databin import build_databin, prepare_databin
from fairseq_seqkd.pseudo.generate import Recipe, open_store, translate
from fairseq_seqkd.pseudo.selectors import Best, Closest
from fairseq_seqkd.pseudo.store import NBest, PseudoTargetStore
from fairseq_seqkd.pseudo.target_spec import TargetSpec


@pytest.fixture
def prepare(data, teacher, loaded, tmp_path):
    """prepare_databin with the usual arguments, where nothing else is said."""

    def call(selector=None, root=None, recipe=None, **spec):
        return prepare_databin(
            str(root or tmp_path / "store"),
            load_split(data),
            TargetSpec(selector or Best(), **spec),
            recipe or recipe_with(teacher, loaded, {"beam": 4}),
        )

    return call


def closest(data, *options, **others):
    return Closest(load_split(data).dataset.tgt_dict, *options, **others)


def targets_in(databin):
    return [tokens.tolist() for tokens in load_split(databin).dataset.tgt]


def test_best_is_the_first_hypothesis(prepare, tmp_path):
    targets = targets_in(prepare())
    for id_, sentence in all_nbest(tmp_path / "store").items():
        if sentence.hypotheses:
            assert targets[id_] == sentence.hypotheses[0][0].tolist()


def test_what_cannot_be_translated_keeps_gold_and_is_counted(prepare, data, tmp_path, caplog):
    with caplog.at_level("INFO"):
        targets = targets_in(prepare())
    gold = load_split(data).dataset.tgt
    for id_ in (EMPTY, LONG):
        assert targets[id_] == gold[id_].tolist()
    statuses = Counter(one.status for one in all_nbest(tmp_path / "store").values())
    translated = statuses.pop("translated")
    report = read_json(tmp_path / "store" / "best" / "target_spec.json")["sentences"]
    assert report == {"teacher": translated, "gold": dict(statuses), "dropped": {}}
    assert statuses["empty source"] == statuses["source too long"] == 1
    assert "1 sentences keep their gold target: empty source" in caplog.text
    assert "1 sentences keep their gold target: source too long" in caplog.text


def test_sums_are_those_of_the_chunks(prepare, tmp_path):
    prepare()
    sums = read_json(tmp_path / "store" / "nbest" / "sums.json")
    paths = PseudoTargetStore(str(tmp_path / "store")).chunks.find().values()
    assert sums == {os.path.basename(path): sha256(path) for path in paths}


def test_one_nbest_list_serves_every_selection(prepare, data, tmp_path):
    prepare()
    before = os.listdir(tmp_path / "store" / "nbest")
    nothing_more = {"recipe": Recipe()}
    by_bleu = prepare(closest(data), **nothing_more)
    by_chrf = prepare(closest(data, metric="chrf"), **nothing_more)
    assert os.listdir(tmp_path / "store" / "nbest") == before
    assert [os.path.basename(path) for path in (by_bleu, by_chrf)] == [
        "closest",
        "closest-chrf",
    ]
    best = targets_in(tmp_path / "store" / "best")
    assert best != targets_in(by_bleu) and best != targets_in(by_chrf)


def test_several_processes_choose_as_one_does(data, teacher, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 13)
    split, recipe = load_split(data), recipe_with(teacher, loaded, {"beam": 4})
    found = open_store(str(tmp_path / "store"), split, BEST, recipe)
    translate(found, split, recipe, Worker())
    one, two = (
        build_databin(found, split, TargetSpec(closest(data), folder=name), processes)
        for name, processes in (("one", 0), ("two", 2))
    )
    names = sorted(os.listdir(one))
    assert [sha256(os.path.join(one, name)) for name in names] == [
        sha256(os.path.join(two, name)) for name in names
    ]


def test_what_a_killed_process_left_is_swept(prepare, tmp_path):
    folder = prepare()
    shutil.rmtree(folder)
    child = os.fork()
    if child == 0:
        with atomic_directory(folder), atomic_file(tmp_path / "store" / "nbest" / "chunk"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(os.listdir(tmp_path / "store")) == 3
    prepare(recipe=Recipe())
    assert sorted(os.listdir(tmp_path / "store")) == ["best", "manifest.json", "nbest"]
    assert not [n for n in os.listdir(tmp_path / "store" / "nbest") if n.startswith(".")]


class TestFilters:
    """On lists that are written by hand, one fault each."""

    @pytest.fixture
    def made(self, data, teacher, loaded, tmp_path, monkeypatch):
        """A store of the first sentences of the split, with these hypotheses."""
        split = with_sentences(load_split(data), 6)
        dataset = split.dataset
        # The two vocabularies differ: a copy needs a symbol that both have.
        source, target = 9, dataset.tgt_dict.add_symbol(dataset.src_dict[9])
        sources = [list(s) for s in ([source, 2], [source, 2], [5, 6, 2], [source, source, 2])]
        dataset.src = [torch.tensor(s) for s in [*sources, [7, 8, 2], [7, 8, 2]]]
        dataset.src_sizes = np.array([len(s) for s in dataset.src])
        lists = [[4, 2], [4, 5, 6, 7, 2], [4, 5, 2], [target, target, 2], [5, 4, 2], [5, 4, 2]]
        scores = [-1.0, -1.0, -9.0, -1.0, -1.0, -1.0]
        monkeypatch.setattr(type(split), "describe", lambda self: {"data": {}})
        recipe = recipe_with(teacher, loaded)
        store = open_store(str(tmp_path / "made"), split, BEST, recipe)
        order = store.plan(dataset.src_sizes)[0].tolist()
        store.write_chunk(
            0,
            [
                NBest(i, "translated", [(np.array(lists[i], np.int32), scores[i])])
                for i in order
            ],
        )
        return store, split

    @pytest.mark.parametrize(
        "filters, caught",
        [
            ({"length_ratio": 3.0}, [1]),
            ({"length_ratio": 1.9}, [1]),
            ({"score_percentile": 10.0}, [2]),
            ({"copies": True}, [3]),
            ({"duplicates": True}, [5]),
            ({"length_ratio": 3.0, "copies": True, "duplicates": True}, [1, 3, 5]),
            ({"copies": False}, []),
        ],
    )
    @pytest.mark.parametrize("drop", [False, True])
    def test_what_each_finds(self, made, filters, caught, drop):
        store, split = made
        databin = build_databin(store, split, TargetSpec(Best(), filters, drop))
        # Its source file has all of the split's sentences, so it is read alone.
        written = data_utils.load_indexed_dataset(f"{databin}/train.src-tgt.tgt", None)
        targets = [tokens.tolist() for tokens in written]
        hypotheses = {i: s.hypotheses[0][0].tolist() for i, s in all_nbest(store.root).items()}
        gold = [split.dataset.tgt[i].tolist() for i in range(6)]
        if drop:
            assert targets == [hypotheses[i] for i in range(6) if i not in caught]
        else:
            expected = [gold[i] if i in caught else hypotheses[i] for i in range(6)]
            assert targets == expected
        report = read_json(os.path.join(databin, "target_spec.json"))["sentences"]
        assert report["teacher"] == 6 - len(caught)
        assert sum(report["dropped" if drop else "gold"].values()) == len(caught)
        assert report["gold" if drop else "dropped"] == {}

    @pytest.mark.parametrize(
        "filters, message",
        [
            ({"length_ratio": 0.5}, "--filter-length-ratio is 0.5, expected 1 or more"),
            ({"length_ratio": float("nan")}, "--filter-length-ratio is nan"),
            ({"score_percentile": 100}, "--filter-score-percentile is 100"),
            ({"score_percentile": -1}, "--filter-score-percentile is -1"),
        ],
    )
    def test_values_out_of_range(self, filters, message):
        with pytest.raises(ValueError, match=message):
            TargetSpec(Best(), filters)


class TestSourceOnly:
    @pytest.fixture
    def source_only(self, data, tmp_path):
        """The data-bin as ``fairseq-preprocess --only-source`` leaves it."""
        folder = tmp_path / "source-only"
        shutil.copytree(data, folder)
        for suffix in ("bin", "idx"):
            os.unlink(folder / f"train.src-tgt.tgt.{suffix}")
            name = f"train.src-tgt.src.{suffix}"
            os.rename(folder / name, folder / name.replace("src-tgt", "src-None"))
        return folder

    def test_untranslated_sentences_go(self, source_only, data, teacher, loaded, tmp_path):
        split = load_split(source_only)
        assert not split.has_gold
        databin = prepare_databin(
            *[str(tmp_path / "store"), split, TargetSpec(Best())],
            recipe_with(teacher, loaded, {"beam": 2}),
        )
        written, gold = load_split(databin).dataset, load_split(data).dataset
        lists = all_nbest(tmp_path / "store")
        kept = [i for i in range(160) if lists[i].hypotheses]
        assert EMPTY not in kept and LONG not in kept and len(kept) > 100
        assert [s.tolist() for s in written.src] == [gold.src[i].tolist() for i in kept]
        assert [t.tolist() for t in written.tgt] == [
            lists[i].hypotheses[0][0].tolist() for i in kept
        ]
        report = read_json(os.path.join(databin, "target_spec.json"))["sentences"]
        assert report["teacher"] == len(kept)
        assert sum(report["dropped"].values()) == 160 - len(kept)

    def test_closest_is_refused(self, source_only, data, teacher, loaded, tmp_path):
        recipe = recipe_with(teacher, loaded, {"beam": 2})
        with pytest.raises(ValueError, match="has sources alone"):
            prepare_databin(
                *[str(tmp_path / "store"), load_split(source_only)],
                *[TargetSpec(closest(data)), recipe],
            )

    def test_gold_in_the_place_of_faults_is_refused(
        self, source_only, teacher, loaded, tmp_path
    ):
        recipe = recipe_with(teacher, loaded, {"beam": 2})
        with pytest.raises(ValueError, match="--filter-action gold: .*no gold targets"):
            prepare_databin(
                *[str(tmp_path / "store"), load_split(source_only)],
                *[TargetSpec(Best(), {"copies": True}), recipe],
            )


class TestRefuses:
    def test_other_way_of_choosing(self, store, prepare, data):
        with pytest.raises(ValueError, match="remove_bpe: found None, expected @@ "):
            prepare(closest(data, "@@ "), root=store, recipe=Recipe())

    def test_other_filters(self, store, prepare):
        with pytest.raises(ValueError, match="filters.copies: found None, expected True"):
            prepare(root=store, recipe=Recipe(), filters={"copies": True})

    def test_a_filtered_data_bin_for_an_unfiltered_one(self, prepare, data, tmp_path):
        prepare(filters={"length_ratio": 1.5})
        prepare(recipe=Recipe())  # a training that says nothing of filters takes it
        found = PseudoTargetStore(str(tmp_path / "store"))
        with pytest.raises(ValueError, match="length_ratio: found 1.5, expected None"):
            build_databin(found, load_split(data), BEST)

    def test_choosing_from_a_list_of_one(self, prepare, data, teacher, loaded):
        recipe = recipe_with(teacher, loaded, {"beam": 4, "nbest": 1})
        prepare(recipe=recipe)
        with pytest.raises(ValueError, match="there is nothing to choose 'closest' from"):
            prepare(closest(data), recipe=recipe)


def test_only_the_first_of_several_builds(data, teacher, loaded, tmp_path):
    split, recipe = load_split(data), recipe_with(teacher, loaded, {"beam": 2})
    store = open_store(str(tmp_path / "store"), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    first = build_databin(store, split, TargetSpec(Best()))
    inode = os.stat(first).st_ino
    assert build_databin(store, split, TargetSpec(Best())) == first
    assert os.stat(first).st_ino == inode
