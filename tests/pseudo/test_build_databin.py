import filecmp
import os
import shutil
import signal
from collections import Counter

import numpy as np
import pytest
from conftest import (
    BEST,
    EMPTY,
    LONG,
    all_nbest,
    files,
    load_split,
    recipe_with,
    tokens_of,
)

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.io.files import atomic_directory, atomic_file, read_json, sha256
from fairseq_seqkd.pseudo.build_databin import build_databin, prepare_databin, write_databin
from fairseq_seqkd.pseudo.generate import open_store, translate
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.pseudo.selectors import Best, Closest
from fairseq_seqkd.pseudo.store import PseudoTargetStore
from fairseq_seqkd.pseudo.target_spec import TargetSpec

ALL = np.arange(160)


@pytest.fixture
def prepare(split, teacher, loaded, tmp_path):
    """prepare(selector, root, recipe, **spec): prepare_databin with defaults."""

    def call(selector=None, root=None, recipe=None, other_split=None, **spec):
        return prepare_databin(
            str(root or tmp_path / "store"),
            other_split or split,
            TargetSpec(selector or Best(), **spec),
            recipe or recipe_with(teacher, loaded, {"beam": 4}),
        )

    return call


def closest(split, **options):
    return Closest(split.dataset.tgt_dict, **options)


def targets_in(databin):
    """The training targets of a data-bin, as lists of token ids."""
    return [tokens.tolist() for tokens in load_split(databin).dataset.tgt]


def test_best_is_the_first_hypothesis(prepare, tmp_path):
    targets = targets_in(prepare())
    for id_, sentence in all_nbest(tmp_path / "store").items():
        if sentence.hypotheses:
            assert targets[id_] == tokens_of(sentence)[0]


@pytest.mark.parametrize("spec", [{}, {"filters": {"score_percentile": 30}, "drop": True}])
def test_of_fairseqs_older_format_it_is_the_same(prepare, older, store, tmp_path, spec):
    """The store is the one of the mmap data, and all splits of the data-bin are mmap."""
    databins = []
    for name, split in (("mmap", None), ("older", load_split(older))):
        root = shutil.copytree(store, tmp_path / name)
        shutil.rmtree(root / "best")
        databins.append(prepare(Best(), root, Recipe(), split, **spec))
    found, expected = (
        {name: digest for name, digest in files(folder).items() if name != "preprocess.log"}
        for folder in databins
    )
    assert found == expected


@pytest.mark.parametrize("name", ["src.bin", "src.idx", "tgt.bin", "tgt.idx"])
def test_a_byte_of_its_training_files_flipped(prepare, store, tmp_path, name):
    root = shutil.copytree(store, tmp_path / "store")
    path = root / "best" / f"train.src-tgt.{name}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}' is missing, damaged or was changed"):
        prepare(root=root, recipe=Recipe())
    shutil.rmtree(root / "best")  # as the message says
    prepare(root=root, recipe=Recipe())


def test_untranslated_sentences_keep_gold_and_are_counted(prepare, split, tmp_path, caplog):
    with caplog.at_level("INFO"):
        targets = targets_in(prepare())
    for id_ in (EMPTY, LONG):
        assert targets[id_] == split.dataset.tgt[id_].tolist()
    statuses = Counter(sentence.status for sentence in all_nbest(tmp_path / "store").values())
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


def test_one_nbest_list_serves_every_selector(prepare, split, tmp_path):
    prepare()
    before = os.listdir(tmp_path / "store" / "nbest")
    by_bleu = prepare(closest(split), recipe=Recipe())
    by_chrf = prepare(closest(split, metric="chrf"), recipe=Recipe())
    assert os.listdir(tmp_path / "store" / "nbest") == before
    assert [os.path.basename(path) for path in (by_bleu, by_chrf)] == [
        "closest",
        "closest-chrf",
    ]
    best = targets_in(tmp_path / "store" / "best")
    assert best != targets_in(by_bleu) and best != targets_in(by_chrf)


def test_partial_files_of_a_killed_process_are_removed(prepare, tmp_path):
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
    names = os.listdir(tmp_path / "store" / "nbest")
    assert not [name for name in names if name.startswith(".")]


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

    def test_untranslated_sentences_are_dropped(
        self, source_only, split, teacher, loaded, tmp_path
    ):
        sources = load_split(source_only)
        assert not sources.has_gold
        databin = prepare_databin(
            *[str(tmp_path / "store"), sources, TargetSpec(Best())],
            recipe_with(teacher, loaded, {"beam": 2}),
        )
        written, gold = load_split(databin).dataset, split.dataset
        lists = all_nbest(tmp_path / "store")
        kept = [i for i in range(160) if lists[i].hypotheses]
        assert EMPTY not in kept and LONG not in kept and len(kept) > 100
        assert [s.tolist() for s in written.src] == [gold.src[i].tolist() for i in kept]
        assert [t.tolist() for t in written.tgt] == [tokens_of(lists[i])[0] for i in kept]
        report = read_json(os.path.join(databin, "target_spec.json"))["sentences"]
        assert report["teacher"] == len(kept)
        assert sum(report["dropped"].values()) == 160 - len(kept)

    def test_closest_takes_the_best_and_counts_it(
        self, source_only, split, teacher, loaded, tmp_path, caplog
    ):
        root, sources = str(tmp_path / "store"), load_split(source_only)
        recipe = recipe_with(teacher, loaded, {"beam": 2})
        with caplog.at_level("INFO"):
            databin = prepare_databin(root, sources, TargetSpec(closest(split)), recipe)
        best = prepare_databin(root, sources, TargetSpec(Best()), recipe)
        assert targets_in(databin) == targets_in(best)
        report = read_json(os.path.join(databin, "target_spec.json"))
        count = report["sentences"]["teacher"]
        assert report["without_gold"] == count > 100 and report["quality"] is None
        assert f"{count} sentences have no gold target to compare with" in caplog.text

    def test_an_empty_gold_target_is_none(self, data, store, tmp_path, monkeypatch):
        root = shutil.copytree(store, tmp_path / "store")
        shutil.rmtree(root / "closest")
        split = load_split(data)
        monkeypatch.setattr(type(split), "describe", lambda self: {})
        dataset, lists = split.dataset, all_nbest(root)
        dataset.tgt = [tokens for tokens in dataset.tgt]
        dataset.tgt_sizes = dataset.tgt_sizes.copy()
        id_ = next(i for i in sorted(lists) if len(lists[i].hypotheses) > 1)
        dataset.tgt[id_], dataset.tgt_sizes[id_] = dataset.tgt[id_][-1:], 1
        spec = TargetSpec(closest(split))
        databin = build_databin(PseudoTargetStore(str(root)), split, spec)
        assert targets_in(databin)[id_] == tokens_of(lists[id_])[0]
        assert read_json(os.path.join(databin, "target_spec.json"))["without_gold"] == 1

    def test_gold_in_place_of_rejected_hypotheses_is_refused(
        self, source_only, teacher, loaded, tmp_path
    ):
        recipe = recipe_with(teacher, loaded, {"beam": 2})
        with pytest.raises(ValueError, match="--filter-action gold: .*no gold targets"):
            prepare_databin(
                *[str(tmp_path / "store"), load_split(source_only)],
                *[TargetSpec(Best(), {"copies": True}), recipe],
            )


class TestRefuses:
    def test_another_selector(self, store, prepare, split):
        with pytest.raises(ValueError, match="remove_bpe: found None, expected @@ "):
            prepare(closest(split, remove_bpe="@@ "), root=store, recipe=Recipe())

    def test_other_filters(self, store, prepare):
        with pytest.raises(ValueError, match="filters.copies: found None, expected True"):
            prepare(root=store, recipe=Recipe(), filters={"copies": True})

    def test_a_filtered_data_bin_for_an_unfiltered_one(self, prepare, split, tmp_path):
        prepare(filters={"length_ratio": 1.5})
        prepare(recipe=Recipe())  # a training without filters in its flags accepts it
        store = PseudoTargetStore(str(tmp_path / "store"))
        with pytest.raises(ValueError, match="length_ratio: found 1.5, expected None"):
            build_databin(store, split, BEST)

    def test_selecting_from_a_list_of_one(self, prepare, split, teacher, loaded):
        recipe = recipe_with(teacher, loaded, {"beam": 4, "nbest": 1})
        prepare(recipe=recipe)
        with pytest.raises(ValueError, match="there is nothing to select 'closest' from"):
            prepare(closest(split), recipe=recipe)


def test_only_the_first_of_several_builds(split, teacher, loaded, tmp_path):
    recipe = recipe_with(teacher, loaded, {"beam": 2})
    store = open_store(str(tmp_path / "store"), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    first = build_databin(store, split, TargetSpec(Best()))
    inode = os.stat(first).st_ino
    assert build_databin(store, split, TargetSpec(Best())) == first
    assert os.stat(first).st_ino == inode


class TestWriteDatabin:
    @pytest.fixture
    def targets(self, split):
        """New targets: the first two tokens of every gold target, and EOS."""
        return [np.append(tokens.numpy()[:2], 2) for tokens in split.dataset.tgt]

    def test_replaces_the_targets_and_nothing_else(self, data, split, targets, tmp_path):
        report = {"selector": "best"}
        write_databin(str(tmp_path / "best"), split, ALL, targets.__getitem__, report)
        written = load_split(tmp_path / "best").dataset
        assert [t.tolist() for t in targets] == [t.tolist() for t in written.tgt]
        found = read_json(tmp_path / "best" / "target_spec.json")
        sums = found.pop("sha256")
        assert found == report and sums == {n: sha256(tmp_path / "best" / n) for n in sums}
        replaced = {"train.src-tgt.tgt.bin", "train.src-tgt.tgt.idx"}
        same = sorted(set(os.listdir(data)) - replaced)
        assert filecmp.cmpfiles(data, tmp_path / "best", same, shallow=False) == (same, [], [])

    def test_a_dropped_sentence_loses_its_source_too(self, split, targets, tmp_path):
        ids = np.delete(ALL, [0, 7, 150])
        write_databin(str(tmp_path / "some"), split, ids, targets.__getitem__, {})
        gold, written = split.dataset, load_split(tmp_path / "some").dataset
        for index, id_ in enumerate(ids):
            assert written.src[index].tolist() == gold.src[id_].tolist()
            assert written.tgt[index].tolist() == targets[id_].tolist()
        assert len(written) == 157

    def test_nothing_is_left_if_it_fails(self, split, targets, tmp_path):
        def target_of(id_):
            if id_ == 100:
                raise OSError(28, "No space left on device")
            return targets[id_]

        with pytest.raises(OSError, match="No space left on device: .*best"):
            write_databin(str(tmp_path / "best"), split, ALL, target_of, {})
        assert os.listdir(tmp_path) == []
