import os
import shutil

import numpy as np
import pytest
import torch
from conftest import BEST, all_nbest, load_split, recipe_with, tokens_of, with_sentences
from fairseq.data import data_utils

from fairseq_seqkd.io.files import read_json, sha256
from fairseq_seqkd.pseudo.build_databin import build_databin
from fairseq_seqkd.pseudo.filters import PairScores
from fairseq_seqkd.pseudo.generate import open_store
from fairseq_seqkd.pseudo.selectors import Best
from fairseq_seqkd.pseudo.store import NBest, PseudoTargetStore
from fairseq_seqkd.pseudo.target_spec import TargetSpec

TEXTS = {  # id: (source, hypothesis, gold)
    0: ("a b 12 c", "d e 12 f", "d e 12 f"),  # all is well
    1: ("a b 12 c", "d e 21 f", "d e 12 f"),  # another number
    2: ("a b c", "d e f", "g h i j k"),  # far from gold
    3: ("a b c", "d e d e d e", "d e d e"),  # a loop
    4: ("a a a b", "d d d e", "d d d e"),  # as in the source
    5: ("1.000 a", "1,000 d", ""),  # the same number, and no gold
}


@pytest.fixture
def texts(data, tmp_path, monkeypatch):
    """A store and a split of ``TEXTS``."""
    split = with_sentences(load_split(data), 6)
    dataset = split.dataset
    for dictionary in (dataset.src_dict, dataset.tgt_dict):
        for text in TEXTS.values():
            for word in " ".join(text).split():
                dictionary.add_symbol(word)
    encode = [
        [one.encode_line(text[side], add_if_not_exist=False).long() for text in TEXTS.values()]
        for side, one in enumerate((dataset.src_dict, dataset.tgt_dict, dataset.tgt_dict))
    ]
    dataset.src, targets, dataset.tgt = encode
    dataset.src_sizes, dataset.tgt_sizes = (
        np.array([len(one) for one in side]) for side in (dataset.src, dataset.tgt)
    )
    monkeypatch.setattr(type(split), "describe", lambda self: {"data": {"sentences": 6}})
    store = PseudoTargetStore(str(tmp_path / "store"))
    store.create({**split.describe(), "search": {"nbest": 1}, "chunk_size": 6})
    store.write_chunk(
        0, [NBest.from_hypotheses(i, [(targets[i].numpy(), -1.0)]) for i in (5, 3, 1, 0, 2, 4)]
    )
    return store, split


def pair_scores(tmp_path, numbers, percent=20):
    (tmp_path / "scores").write_text("".join(f"{number}\n" for number in numbers))
    return PairScores(str(tmp_path / "scores"), percent)


@pytest.mark.parametrize(
    "filters, rejected",
    [
        ({"numbers": True}, {"numbers": [1]}),
        ({"loops": True}, {"loops": [3]}),
        ({"gold_chrf": 5.0}, {"gold_chrf": [2]}),
        ({"gold_chrf": 99.0}, {"gold_chrf": [1, 2, 3]}),
        ({"gold_chrf": 99.0, "loops": True, "numbers": True}, {"gold_chrf": [1, 2, 3]}),
        (
            {"gold_chrf": 5.0, "loops": True, "numbers": True},
            {"gold_chrf": [2], "numbers": [1], "loops": [3]},
        ),
    ],
)
def test_of_texts(texts, filters, rejected):
    store, split = texts
    databin = build_databin(store, split, TargetSpec(Best(), filters, drop=True))
    left = [i for i in range(6) if i not in sum(rejected.values(), [])]
    written = data_utils.load_indexed_dataset(f"{databin}/train.src-tgt.src", None)
    assert [one.tolist() for one in written] == [split.dataset.src[i].tolist() for i in left]
    report = read_json(os.path.join(databin, "target_spec.json"))
    assert report["sentences"]["dropped"] == {
        f"filter {name}": len(ids) for name, ids in rejected.items()
    }
    assert report["filters"] == filters
    assert report["filter_text"]["remove_bpe"] is None
    with pytest.raises(ValueError, match="filter_text.remove_bpe: found None, expected @@ "):
        how = {"remove_bpe": "@@ "}
        build_databin(store, split, TargetSpec(Best(), filters, drop=True, text=how))


def test_text_is_detokenised(texts):
    """Joined by sentencepiece there are no spaces: no numbers of their own, no loops."""
    store, split = texts
    spec = TargetSpec(Best(), {"loops": True}, True, text={"remove_bpe": "sentencepiece"})
    report = read_json(os.path.join(build_databin(store, split, spec), "target_spec.json"))
    assert report["sentences"]["dropped"] == {}


def test_the_worst_by_scores_from_outside(texts, tmp_path):
    store, split = texts
    value = pair_scores(tmp_path, [-1, -5, -2, "-inf", 3, 4], 40)
    databin = build_databin(store, split, TargetSpec(Best(), {"scores": value}, drop=True))
    written = data_utils.load_indexed_dataset(f"{databin}/train.src-tgt.src", None)
    assert len(written) == 4
    left = [split.dataset.src[i].tolist() for i in (0, 2, 4, 5)]
    assert [one.tolist() for one in written] == left
    report = read_json(os.path.join(databin, "target_spec.json"))
    assert report["filters"] == {
        "scores": {"sha256": sha256(tmp_path / "scores"), "percentile": 40}
    }
    assert report["sentences"]["dropped"] == {"filter scores": 2}
    other = pair_scores(tmp_path, [1, 2, 3, 4, 5, 6], 40)
    with pytest.raises(ValueError, match="filters.scores.sha256: found"):
        build_databin(store, split, TargetSpec(Best(), {"scores": other}, drop=True))


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("has_gold", [True, False])
def test_scores_are_of_the_pairs_without_filters(store, data, tmp_path, has_gold, keep):
    """Sentences that keep their gold target have a score too; it rejects nothing there."""
    root = shutil.copytree(store, tmp_path / "store")
    split, store = load_split(data), PseudoTargetStore(str(root))
    if not has_gold:
        split.dataset.tgt = None
    lists = all_nbest(root)
    sizes = [min(len(lists[i].hypotheses), keep) or int(has_gold) for i in range(160)]
    n_pairs = sum(sizes)
    value = pair_scores(tmp_path, range(n_pairs), 30)
    spec = TargetSpec(Best(), {"scores": value}, not has_gold, folder="x", keep=keep)
    report = read_json(os.path.join(build_databin(store, split, spec), "target_spec.json"))
    translated = [bool(lists[i].hypotheses) for i in range(160) for _ in range(sizes[i])]
    numbers = np.flatnonzero(translated)
    n_rejected = int((numbers < np.percentile(numbers, 30)).sum())
    key = "rejected_pairs" if keep > 1 else "sentences"
    counted = report[key] if keep > 1 else report[key]["gold" if has_gold else "dropped"]
    assert counted["filter scores"] == n_rejected > 20
    for wrong in (n_pairs - 2, n_pairs + 1):
        value = pair_scores(tmp_path, range(wrong), 30)
        spec = TargetSpec(Best(), {"scores": value}, not has_gold, folder="y", keep=keep)
        message = f"has {wrong} scores, and the data-bin without filters {n_pairs} pairs; line"
        with pytest.raises(ValueError, match=message) as error:
            build_databin(store, split, spec)
        first = wrong + 1 if wrong < n_pairs else n_pairs + 1
        assert f"line {first} " in str(error.value)
    assert not os.path.exists(store.path("y"))


def test_several_processes_measure_as_one_does(store, data, tmp_path):
    root = shutil.copytree(store, tmp_path / "store")
    split, store = load_split(data), PseudoTargetStore(str(root))
    databins = [
        build_databin(
            *(
                store,
                split,
                TargetSpec(Best(), {"gold_chrf": 25.0, "loops": True}, folder=name),
            ),
            processes,
        )
        for name, processes in (("one", 0), ("two", 2))
    ]
    one, two = (read_json(os.path.join(one, "target_spec.json")) for one in databins)
    assert one == two and one["sentences"]["gold"]["filter gold_chrf"] > 5


@pytest.fixture
def store_and_split(data, teacher, loaded, tmp_path, monkeypatch):
    """Six sentences with one hypothesis each, of which most have one fault."""
    split = with_sentences(load_split(data), 6)
    dataset = split.dataset
    # The vocabularies differ: a copy needs a symbol of both.
    source, target = 9, dataset.tgt_dict.add_symbol(dataset.src_dict[9])
    sources = [list(s) for s in ([source, 2], [source, 2], [5, 6, 2], [source, source, 2])]
    dataset.src = [torch.tensor(s) for s in [*sources, [7, 8, 2], [7, 8, 2]]]
    dataset.src_sizes = np.array([len(s) for s in dataset.src])
    lists = [[4, 2], [4, 5, 6, 7, 2], [4, 5, 2], [target, target, 2], [5, 4, 2], [5, 4, 2]]
    scores = [-1.0, -1.0, -9.0, -1.0, -1.0, -1.0]
    monkeypatch.setattr(type(split), "describe", lambda self: {"data": {}})
    recipe = recipe_with(teacher, loaded)
    store = open_store(str(tmp_path / "store"), split, BEST, recipe)
    order = store.plan(dataset.src_sizes)[0].tolist()
    pairs = [(np.array(tokens, np.int32), score) for tokens, score in zip(lists, scores)]
    store.write_chunk(0, [NBest.from_hypotheses(i, [pairs[i]]) for i in order])
    return store, split


def test_filters_that_leave_nothing_are_refused(store_and_split):
    store, split = store_and_split
    spec = TargetSpec(Best(), {"length_ratio": 1.0, "duplicates": True, "copies": True}, True)
    split.dataset.src_sizes = split.dataset.src_sizes + 20
    message = "would have no sentence: of 6, 6 are rejected by --filter-length-ratio"
    with pytest.raises(ValueError, match=message):
        build_databin(store, split, spec)
    assert not os.path.exists(store.path("best"))


@pytest.mark.parametrize(
    "filters, rejected",
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
def test_rejected_hypotheses_are_replaced_or_dropped(store_and_split, filters, rejected, drop):
    store, split = store_and_split
    databin = build_databin(store, split, TargetSpec(Best(), filters, drop))
    # Its source file has all sentences of the data-bin, so the targets are read alone.
    written = data_utils.load_indexed_dataset(f"{databin}/train.src-tgt.tgt", None)
    targets = [tokens.tolist() for tokens in written]
    hypotheses = {i: tokens_of(s)[0] for i, s in all_nbest(store.root).items()}
    gold = [split.dataset.tgt[i].tolist() for i in range(6)]
    if drop:
        assert targets == [hypotheses[i] for i in range(6) if i not in rejected]
    else:
        expected = [gold[i] if i in rejected else hypotheses[i] for i in range(6)]
        assert targets == expected
    report = read_json(os.path.join(databin, "target_spec.json"))["sentences"]
    assert report["teacher"] == 6 - len(rejected)
    assert sum(report["dropped" if drop else "gold"].values()) == len(rejected)
    assert report["gold" if drop else "dropped"] == {}


@pytest.mark.parametrize(
    "filters, message",
    [
        ({"length_ratio": 0.5}, "--filter-length-ratio is 0.5, expected 1 or more"),
        ({"length_ratio": float("nan")}, "--filter-length-ratio is nan"),
        ({"score_percentile": 100}, "--filter-score-percentile is 100"),
        ({"score_percentile": -1}, "--filter-score-percentile is -1"),
        ({"length_ratio": 0.0}, "--filter-length-ratio is 0.0, expected 1 or more"),
        ({"gold_chrf": 0.0}, "--filter-gold-chrf is 0.0, expected above 0 and up to 100"),
        ({"gold_chrf": 101}, "--filter-gold-chrf is 101"),
    ],
)
def test_values_out_of_range(filters, message):
    with pytest.raises(ValueError, match=message):
        TargetSpec(Best(), filters)
