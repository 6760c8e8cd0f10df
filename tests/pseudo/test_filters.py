import os

import numpy as np
import pytest
import torch
from conftest import BEST, all_nbest, load_split, recipe_with, tokens_of, with_sentences
from fairseq.data import data_utils

from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.pseudo.build_databin import build_databin
from fairseq_seqkd.pseudo.generate import open_store
from fairseq_seqkd.pseudo.selectors import Best
from fairseq_seqkd.pseudo.store import NBest
from fairseq_seqkd.pseudo.target_spec import TargetSpec


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
    ],
)
def test_values_out_of_range(filters, message):
    with pytest.raises(ValueError, match=message):
        TargetSpec(Best(), filters)
