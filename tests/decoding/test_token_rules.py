"""The law of a model's draws: top k, temperature and nucleus."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairseq_seqkd.decoding.sampling import most_probable, nucleus
from fairseq_seqkd.decoding.token_rules import Drawing

DRAWS = 20000


def drawn(lprobs, **settings):
    """(vocab,) fractions of many draws."""
    torch.manual_seed(1)
    rows = lprobs.expand(DRAWS, -1)
    tokens = Drawing(**settings)(rows, lambda: torch.rand(DRAWS, dtype=torch.float64))
    return tokens.bincount(minlength=len(lprobs)).double() / DRAWS


PROBS = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2], dtype=torch.float64)


@given(st.lists(st.sampled_from([-float("inf"), -2.0, -1.0, 0.0]), min_size=6, max_size=6))
def test_the_most_probable_symbol_is_the_first_of_equals(values):
    lprobs = torch.tensor(values).view(2, 3)
    rows = lprobs.tolist()
    assert most_probable(lprobs).tolist() == [row.index(max(row)) for row in rows]
    strided = lprobs.t().contiguous().t()
    assert Drawing(topk=1)(strided, None).tolist() == [row.index(max(row)) for row in rows]


@pytest.mark.parametrize(
    "settings, law",
    [
        ({}, PROBS),
        ({"topk": 2}, torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65),
        ({"temperature": 0.5}, PROBS**2 / (PROBS**2).sum()),
        ({"temperature": 2.0}, PROBS**0.5 / (PROBS**0.5).sum()),
        ({"topp": 0.5}, torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65),
        ({"topp": 0.3}, torch.tensor([0.0, 1, 0, 0, 0])),
        # The nucleus is that of the tempered law, whose two highest are 0.58 and 0.23.
        ({"topp": 0.7, "temperature": 0.5}, torch.tensor([0, 0.16, 0, 0.0625, 0]) / 0.2225),
        ({"topk": 1}, torch.tensor([0.0, 1, 0, 0, 0])),
    ],
)
def test_law(settings, law):
    assert (drawn(PROBS.log(), **settings) - law).abs().max() < 0.015  # 4 standard deviations


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda probs: sum(probs) > 0.01),
    st.floats(0.01, 1),
)
def test_the_nucleus_is_the_smallest(probs, topp):
    probs = torch.tensor(probs, dtype=torch.float64)
    probs /= probs.sum()
    kept, symbols = nucleus(probs, torch.arange(len(probs)), topp)
    inside = kept > 0
    assert kept.sum() >= topp - 1e-9
    assert kept[inside].sum() - kept[inside].min() < topp + 1e-9
    assert torch.equal(kept[inside], probs[symbols[inside]])
    assert sorted(symbols.tolist()) == list(range(len(probs)))


def test_greedy_draws_no_number():
    def never():
        raise AssertionError

    assert Drawing(topk=1)(PROBS.log().unsqueeze(0), never).tolist() == [1]
