"""The adaptive skew of DistiLLM-2 against its definition, and the detached mixture."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.losses.blockwise_sum import TargetPositions
from fairseq_seqkd.losses.divergences import DIVERGENCES
from fairseq_seqkd.losses.statistics import PositionStatistics
from fairseq_seqkd.losses.support import WholeVocabulary

PAIR = {False: "adaptive_skew_kl", True: "adaptive_skew_reverse_kl"}
LENGTH, VOCAB = 4, 7


def batch(seed, student_rows, scale=2.0):
    """Logits of both, targets, mask and kinds of some rows; all rows have a token or more."""
    rng = np.random.default_rng(seed)
    rows = len(student_rows)
    logits = scale * rng.standard_normal((2, rows, LENGTH, VOCAB))
    target = rng.integers(0, VOCAB, (rows, LENGTH))
    mask = np.arange(LENGTH) < rng.integers(1, LENGTH + 1, (rows, 1))
    return logits[0], logits[1], target, mask, np.array(student_rows)


def ours(name, one, memory, update, gather=lambda values: values, **parameters):
    """(rows, length) the divergence of a batch, computed a few positions at a time."""
    student, teacher, target, mask, student_rows = one
    p, q = (torch.from_numpy(x).flatten(0, 1) for x in (student, teacher))
    target = torch.from_numpy(target).flatten()
    comparator = WholeVocabulary(lambda rows: q[rows], 1)
    everywhere = TargetPositions(torch.ones(mask.shape, dtype=torch.bool))
    counted_mask = torch.from_numpy(mask).flatten()
    statistics = PositionStatistics(
        *(comparator, p, target, counted_mask, everywhere, memory, gather, update),
        student_rows_mask=torch.from_numpy(student_rows),
    )
    divergence = DIVERGENCES.resolve(name, parameters)
    parts = []
    for rows in (slice(0, 3), slice(3, None)):
        support = comparator.compare(p[rows], target[rows], rows).support
        parts.append(divergence(support, statistics))
    return torch.cat(parts).view(mask.shape).numpy()


def probabilities(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def gap_of(p, q, target, mask, is_student):
    """How much more probable its author finds a text than the other does."""
    means = [np.exp(np.log(x[np.arange(LENGTH), target])[mask].mean()) for x in (q, p)]
    return means[1] - means[0] if is_student else means[0] - means[1]


def expected(one, mean, largest):
    """(rows, length) the loss of a batch, whose m is {kind: mean gap or None}."""
    student, teacher, target, mask, student_rows = one
    values = np.zeros(mask.shape)
    for row, is_student in enumerate(student_rows):
        p, q = probabilities(student[row]), probabilities(teacher[row])
        a, m = largest, mean[bool(is_student)]
        if m is not None:
            gap = gap_of(p, q, target[row], mask[row], is_student)
            a = np.clip(1 - (1 - largest) * m / (gap + 1e-5), 0.01, largest)
        first, second = (p, q) if is_student else (q, p)
        mixed = a * first + (1 - a) * second
        values[row] = (first * np.log(first / mixed)).sum(-1)
    return values


def mean_gap(batches, is_student):
    gaps = [
        gap_of(probabilities(p), probabilities(q), *rest)
        for one in batches
        for p, q, *rest in zip(*one)
        if rest[-1] == is_student
    ]
    return np.mean(gaps) if gaps else None


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    window=st.integers(1, 3),
    largest=st.sampled_from([0.1, 0.5]),
    kinds=st.lists(st.lists(st.booleans(), min_size=2, max_size=4), min_size=1, max_size=6),
)
def test_equals_float64_computation(seed, window, largest, kinds):
    """m is the mean over the first updates with such rows, for each kind of text apart."""
    memory = {}
    batches = [batch(seed + i, rows) for i, rows in enumerate(kinds)]
    for update, one in enumerate(batches):
        mean = {}
        for kind in (False, True):
            first = next((i for i, rows in enumerate(kinds) if kind in rows), update)
            is_known = update >= first + window
            mean[kind] = mean_gap(batches[first : first + window], kind) if is_known else None
        wanted = expected(one, mean, largest)
        parameters = {"kd_largest_skew": largest, "kd_skew_window": window}
        before = dict(memory)
        for kind, name in PAIR.items():
            result = ours(name, one, memory, update, **parameters)
            rows = (one[-1] == kind)[:, None] & one[3]
            np.testing.assert_allclose(result[rows], wanted[rows], rtol=1e-6, atol=1e-9)
            if not kind:  # one criterion has one memory, which both use in a step
                memory, after = before, memory
        memory = after


@given(seed=st.integers(0, 10**6), student=st.booleans())
@settings(max_examples=25, deadline=None)
def test_what_stands_in_padding_does_not_matter(seed, student):
    values = []
    for noise in (0.0, 5.0):
        memory, name = {}, PAIR[student]
        for update in range(3):
            one = batch(seed + update, [student, student])
            one[0][~one[3]] += noise * np.arange(VOCAB)
            one[2][~one[3]] = 3
            result = ours(name, one, memory, update, kd_skew_window=2)
        values.append(result[one[3]])
    np.testing.assert_array_equal(*values)


def test_the_window_has_the_texts_of_all_processes():
    """The other process has these gaps too; twice the texts have the same mean."""
    one = batch(1, [False, False])
    alone, together = {}, {}
    for update in range(2):
        ours("adaptive_skew_kl", one, alone, update, kd_skew_window=1)
        twice = {"gather": lambda values: torch.cat([values + 0.5, values])}
        ours("adaptive_skew_kl", one, together, update, kd_skew_window=1, **twice)
    (total, n, *_), (total_of_all, n_of_all, *_) = (
        alone["skew_gaps"][0],
        together["skew_gaps"][0],
    )
    assert (n, n_of_all) == (2, 4)
    assert total_of_all / n_of_all == pytest.approx(float(total / n) + 0.25)


def test_validation_changes_nothing_and_uses_the_mean():
    one, memory = batch(1, [False, False]), {}
    first = ours("adaptive_skew_kl", one, memory, 0, kd_skew_window=1)
    ours("adaptive_skew_kl", one, memory, 1, kd_skew_window=1)
    before = memory["skew_gaps"].clone()
    result = ours("adaptive_skew_kl", one, memory, None, kd_skew_window=1)
    assert torch.equal(memory["skew_gaps"], before)
    assert (result[one[3]] != first[one[3]]).any()


def test_a_detached_mixture_has_no_gradient():
    """With m held fixed, the gradient of KL(p || m) for z is p (log p/m - its mean)."""
    torch.manual_seed(1)
    teacher = torch.log_softmax(torch.randn(5, 9, dtype=torch.float64), -1)
    student = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    comparator = WholeVocabulary(lambda rows: teacher[rows], 1)
    support = comparator.compare(student, torch.zeros(5, dtype=torch.long), slice(None)).support
    names = {"kd_skew": 0.3, "kd_detached_mixture": True}
    value = DIVERGENCES.resolve("skew_reverse_kl", names)(support)
    plain = DIVERGENCES.resolve("skew_reverse_kl", {"kd_skew": 0.3})(support)
    assert torch.equal(value, plain)
    gradient, with_mixture = (
        torch.autograd.grad(x.sum(), student, retain_graph=True)[0] for x in (value, plain)
    )
    p, q = torch.softmax(student, -1).detach().numpy(), teacher.exp().numpy()
    ratio = np.log(p / (0.3 * p + 0.7 * q))
    wanted = p * (ratio - (p * ratio).sum(-1, keepdims=True))
    np.testing.assert_allclose(gradient, wanted, atol=1e-12)
    assert not torch.allclose(gradient, with_mixture)
