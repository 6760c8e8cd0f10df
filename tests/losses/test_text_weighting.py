"""Weights of tokens and sentences: values, properties, ranges."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairseq_seqkd.losses.blockwise_sum import TargetPositions
from fairseq_seqkd.losses.statistics import PositionStatistics
from fairseq_seqkd.losses.support import NoTeacher
from fairseq_seqkd.losses.text_weighting import NLL_WEIGHTINGS, SENTENCE_WEIGHTINGS

OPTIONS = [
    (axis, name)
    for axis in (NLL_WEIGHTINGS, SENTENCE_WEIGHTINGS)
    for name in axis.options
    if name != "uniform"
]
PAD, VOCAB = 1, 9


@st.composite
def texts(draw, min_length=0):
    """Logits, targets with padding, and gold of another length, of some rows."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, length, gold_length = (draw(st.integers(1, 5)) for _ in range(3))
    logits = 3 * rng.standard_normal((rows, length, VOCAB))
    target = rng.integers(2, VOCAB, (rows, length))
    target[np.arange(length) >= rng.integers(min_length, length + 1, (rows, 1))] = PAD
    gold = rng.integers(2, VOCAB, (rows, gold_length))
    gold[np.arange(gold_length) >= rng.integers(1, gold_length + 1, (rows, 1))] = PAD
    return tuple(map(torch.from_numpy, (logits, target, gold)))


def statistics_of(logits, target, gold=None):
    everywhere = TargetPositions(torch.ones_like(target, dtype=torch.bool))
    texts = logits.flatten(0, 1), target.flatten(), target.ne(PAD).flatten(), everywhere
    return PositionStatistics(NoTeacher(), *texts, gold=gold)


@given(texts=texts(min_length=1), success=st.floats(0, 3), failure=st.floats(0, 3))
def test_paced_equals_float64_computation(texts, success, failure):
    logits, target, _ = texts
    powers = {"sentence_success_power": success, "sentence_failure_power": failure}
    weights = SENTENCE_WEIGHTINGS.resolve("paced", powers)(statistics_of(logits, target))
    probs = np.exp(logits.numpy())
    probs = probs / probs.sum(-1, keepdims=True)
    for row, weight in enumerate(weights):
        symbols = [int(v) for v in target[row] if v != PAD]
        f = np.mean([probs[row, t, v] for t, v in enumerate(symbols)])
        assert weight.item() == pytest.approx(f**success * (1 - f) ** failure, rel=1e-6)


@given(texts=texts())
def test_contrastive_equals_a_plain_loop(texts):
    logits, target, gold = texts
    signs = {"nll_correct_weight": 0.75, "nll_incorrect_weight": -0.25}
    weighting = NLL_WEIGHTINGS.resolve("contrastive", signs)
    weights = weighting(statistics_of(logits, target, gold)).view_as(target).tolist()
    for row, (symbols, reference) in enumerate(zip(target.tolist(), gold.tolist())):
        wanted = [0.0 if v == PAD else 0.75 if v in reference else -0.25 for v in symbols]
        assert weights[row] == wanted


@given(texts=texts())
def test_all_of_gold_stands_in_gold(texts):
    logits, target, _ = texts
    weights = NLL_WEIGHTINGS.resolve("contrastive", {})(statistics_of(logits, target))
    assert torch.equal(weights, 0.5 * target.ne(PAD).flatten())


@pytest.mark.parametrize("axis, name", OPTIONS)
@given(texts=texts())
def test_finite_and_what_stands_in_padding_does_not_matter(axis, name, texts):
    logits, target, gold = texts
    weighting = axis.resolve(name, {})
    before = weighting(statistics_of(logits, target, gold))
    assert before.isfinite().all() and before.numel() in (target.numel(), len(target))
    logits[target == PAD] = 50 * torch.randn(VOCAB, dtype=torch.float64)
    assert torch.equal(weighting(statistics_of(logits, target, gold)), before)
    if axis is SENTENCE_WEIGHTINGS:
        assert (before >= 0).all()
    else:
        assert (before[target.flatten() == PAD] == 0).all()


def test_paced_is_largest_half_way():
    """A sentence that is known, one that is not, and one between them."""
    nll = -torch.tensor([0.99, 0.98, 0.5, 0.5, 0.01, 0.02]).log()
    positions = TargetPositions(torch.ones(3, 2, dtype=torch.bool))
    mask = torch.ones(6, dtype=torch.bool)
    given = SimpleNamespace(student_nll=nll, counted_mask=mask, positions=positions)
    given.row_means = PositionStatistics.row_means.__get__(given)
    weights = SENTENCE_WEIGHTINGS.resolve("paced", {})(given)
    assert weights.tolist() == pytest.approx([0.985 * 0.015, 0.25, 0.015 * 0.985], abs=1e-6)


def test_uniform_weighs_nothing():
    for axis in (NLL_WEIGHTINGS, SENTENCE_WEIGHTINGS):
        assert axis.resolve("uniform", {}) is None


@pytest.mark.parametrize(
    "axis, name, settings, message",
    [
        (NLL_WEIGHTINGS, "contrastive", {"nll_correct_weight": np.inf}, "--nll-correct-weight"),
        (NLL_WEIGHTINGS, "contrastive", {"nll_incorrect_weight": np.nan}, "--nll-incorrect-w"),
        (
            SENTENCE_WEIGHTINGS,
            "paced",
            {"sentence_success_power": -1.0},
            "--sentence-success-power is -1.0, expected a number from 0 upwards",
        ),
        (SENTENCE_WEIGHTINGS, "paced", {"sentence_failure_power": -1.0}, "--sentence-failure"),
        (SENTENCE_WEIGHTINGS, "best", {}, "--sentence-weighting is 'best', expected one of"),
    ],
)
def test_out_of_range(axis, name, settings, message):
    with pytest.raises(ValueError, match=message):
        axis.resolve(name, settings)
