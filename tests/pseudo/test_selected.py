import os

import numpy as np
import pytest
from conftest import BEST, all_nbest, recipe_with, tokens_of

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.io.files import sha256
from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.pseudo.build_databin import build_databin
from fairseq_seqkd.pseudo.generate import open_store, translate
from fairseq_seqkd.pseudo.selected import select_hypotheses
from fairseq_seqkd.pseudo.selectors import Best, Closest
from fairseq_seqkd.pseudo.store import STATUSES
from fairseq_seqkd.pseudo.target_spec import TargetSpec


@pytest.fixture
def store(split, teacher, loaded, tmp_path, monkeypatch):
    """A finished store in chunks of 13 sentences."""
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 13)
    recipe = recipe_with(teacher, loaded, {"beam": 4})
    store = open_store(str(tmp_path / "store"), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    return store


@pytest.mark.parametrize("name", ["best", "closest"])
def test_every_sentence_has_its_selected_hypothesis(split, store, name):
    selector = {"best": Best(), "closest": Closest(split.dataset.tgt_dict)}[name]
    selected = select_hypotheses(store, split, selector)
    lists = all_nbest(store.root)
    translated = [bool(lists[id_].hypotheses) for id_ in range(160)]
    assert selected.translated_mask.tolist() == translated
    assert sum(translated) > 100
    for id_, sentence in lists.items():
        assert STATUSES[selected.statuses[id_]] == sentence.status
        if sentence.hypotheses:
            index = selector(sentence.hypotheses, split.dataset.tgt[id_])
            assert selected.tokens(id_).tolist() == tokens_of(sentence)[index]
            assert selected.scores[id_] == np.float32(sentence.hypotheses[index][1])
            assert selected.target_lengths[id_] == len(selected.tokens(id_))
        else:
            assert selected.scores[id_] == -np.inf and len(selected.tokens(id_)) == 0


def test_several_processes_select_as_one_does(split, store):
    closest = Closest(split.dataset.tgt_dict)
    one, two = (
        build_databin(store, split, TargetSpec(closest, folder=name), processes)
        for name, processes in (("one", 0), ("two", 2))
    )
    names = sorted(os.listdir(one))
    assert [sha256(os.path.join(one, name)) for name in names] == [
        sha256(os.path.join(two, name)) for name in names
    ]
