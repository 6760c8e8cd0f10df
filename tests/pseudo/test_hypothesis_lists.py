"""Draws from n-best lists: the law, the hash, and the files."""

import numpy as np
import pytest
from conftest import all_nbest, load_split, tokens_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.pseudo import hypothesis_lists
from fairseq_seqkd.pseudo.build_databin import build_databin
from fairseq_seqkd.pseudo.hypothesis_lists import IDS, LPROBS, HypothesisLists, uniform_of
from fairseq_seqkd.pseudo.selectors import Sampled
from fairseq_seqkd.pseudo.store import PseudoTargetStore
from fairseq_seqkd.pseudo.target_spec import TargetSpec

# The 0.999 quantiles of the chi-square distribution, by degrees of freedom.
CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46}
LISTS = st.lists(st.lists(st.floats(-200, 0, width=32), min_size=1, max_size=7), min_size=1)


def lists_of(folder, lprobs_by_id):
    """`HypothesisLists` of {sentence id: total log-probabilities}."""
    ids = [id_ for id_, lprobs in lprobs_by_id.items() for _ in lprobs]
    np.save(folder / IDS, np.array(ids, np.int64))
    np.save(folder / LPROBS, np.concatenate(list(lprobs_by_id.values())).astype(np.float32))
    return HypothesisLists(str(folder))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_draws_follow_the_law(tmp_path, temperature):
    """Chi-square over 4,000 epochs, for lists of every size; a fixed seed."""
    lprobs = {2 * n: -np.linspace(1, 2 + n / 2, n) * 2 for n in range(1, 8)}
    lists, epochs = lists_of(tmp_path, lprobs), 4000
    drawn = np.stack([lists.draw(7, epoch, temperature) for epoch in range(epochs)])
    for column, (begin, one) in enumerate(zip(lists.begins, lprobs.values())):
        found = np.bincount(drawn[:, column] - begin, minlength=len(one))
        expected = np.exp(one / temperature)
        expected *= epochs / expected.sum()
        kept = expected >= 5  # rare ones are one class
        found = np.append(found[kept], found[~kept].sum())
        expected = np.append(expected[kept], max(expected[~kept].sum(), 1e-9))
        distance = ((found - expected) ** 2 / expected).sum()
        assert distance < CHI_SQUARE.get(len(one) - 1, 1e-6) or len(one) == 1 and distance == 0


def test_sentences_and_epochs_are_independent(tmp_path):
    uniform = np.stack([uniform_of(np.arange(2000), 3, epoch) for epoch in range(30)])
    assert np.abs(np.corrcoef(uniform) - np.eye(30)).max() < 0.12
    assert np.abs(np.corrcoef(uniform[:, :-1].ravel(), uniform[:, 1:].ravel())[0, 1]) < 0.02
    assert 0 <= uniform.min() < 0.001 and 0.999 < uniform.max() < 1
    assert not np.array_equal(uniform[0], uniform_of(np.arange(2000), 4, 0))


def test_a_number_depends_on_its_sentence_alone():
    every = uniform_of(np.arange(50), 3, 5)
    some = np.array([4, 17, 49])
    assert uniform_of(some, 3, 5).tolist() == every[some].tolist()
    # The stream is part of the result of a training: it may never change.
    assert every[:2].tolist() == pytest.approx(FIRST, abs=1e-15)


FIRST = [0.2963187566109079, 0.5683034804423585]


@settings(max_examples=100, deadline=None)
@given(LISTS, st.integers(0, 2**63), st.sampled_from([0.01, 1.0, 100.0]))
def test_a_draw_is_of_its_own_list(tmp_path_factory, lprobs, seed, temperature):
    folder = tmp_path_factory.mktemp("lists")
    lists = lists_of(folder, dict(enumerate(map(np.array, lprobs))))
    drawn = lists.draw(seed, 1, temperature)
    assert (lists.begins[:-1] <= drawn).all() and (drawn < lists.begins[1:]).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hypothesis_lists, "_BLOCK", 2)
        small = lists.draw(seed, 1, temperature)
    # At the border of two hypotheses rounding may decide.
    assert np.mean(small != drawn) < 0.01


def test_at_low_temperatures_the_best(tmp_path):
    lists = lists_of(tmp_path, {0: [-3, -2, -9.0], 5: [-800, -700.0]})
    assert lists.draw(1, 1, 1e-3).tolist() == [1, 4]


@pytest.fixture
def databin(store, split):
    return build_databin(PseudoTargetStore(str(store)), split, TargetSpec(Sampled()))


def test_the_data_bin_has_the_lists(databin, store, split):
    """Total log-probabilities: a score is divided by the length."""
    lists, targets = HypothesisLists(databin), load_split(databin).dataset.tgt
    assert lists.ids.tolist() == list(range(160))
    nbest = all_nbest(store)
    for id_, (begin, end) in enumerate(zip(lists.begins, lists.begins[1:])):
        found = [targets[int(i)].tolist() for i in range(begin, end)]
        assert found == (tokens_of(nbest[id_]) or [split.dataset.tgt[id_].tolist()])
        totals = [score * len(tokens) for tokens, score in nbest[id_].hypotheses] or [0]
        assert lists.lprobs[begin:end].tolist() == pytest.approx(totals, rel=1e-5)
    assert isinstance(lists.lprobs, np.memmap)
