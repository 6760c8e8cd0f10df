"""Every divergence against its definition, written in float64 numpy on probabilities."""

import math

import numpy as np
import pytest
import torch

from fairseq_seqkd.losses.blockwise_sum import TargetPositions
from fairseq_seqkd.losses.divergences import DIVERGENCES
from fairseq_seqkd.losses.statistics import PositionStatistics
from fairseq_seqkd.losses.support import LEFTOVER, TopKAndTail, WholeVocabulary, top_k

INF = math.inf


def numpy_kl(q, p):
    """sum q log(q / p): 0 log 0 is 0, and q log(q / 0) infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(q > 0, q * np.log(np.where(q > 0, q, 1) / p), 0).sum(-1)


def ratio(a, b):
    """a / b, 0 where b is."""
    return a / np.where(b > 0, b, 1)


def numpy_jsd(p, q, beta=0.5, **_):
    m = beta * q + (1 - beta) * p
    return beta * numpy_kl(q, m) + (1 - beta) * numpy_kl(p, m)


def numpy_decoupled(p, q, compared_mask, tail_index, head=10, tail_weight=2.0, **_):
    ranked = q if tail_index < 0 else np.where(np.arange(q.shape[-1]) == tail_index, -1, q)
    head = min(head, q.shape[-1] - (tail_index >= 0))
    order = np.argsort(-ranked, -1, kind="stable")
    p, q = (np.take_along_axis(x, order, -1) for x in (p, q))
    P, Q = p[:, head:].sum(-1), q[:, head:].sum(-1)
    binned = [np.concatenate([x[:, :head], y[:, None]], -1) for x, y in ((q, Q), (p, P))]
    tail = numpy_kl(ratio(q[:, head:], Q[:, None]), ratio(p[:, head:], P[:, None]))
    mean = Q[compared_mask].mean()
    return numpy_kl(*binned) + (tail_weight / mean * Q * tail if mean > 0 else 0)


def numpy_atkd(p, q, target, compared_mask, easy_weight=0.2, **_):
    values, uncertainty = [], []
    for p_, q_, t in zip(p, q, target):
        rest = np.delete(np.arange(len(q_)), t if t >= 0 else [])
        Q, P = q_[rest].sum(), p_[rest].sum()
        beside = numpy_kl(ratio(q_[rest], Q), p_[rest] / P) if Q > 0 else 0.0
        of_target = (q_[t], p_[t]) if t >= 0 else (0.0, 0.0)
        binary = numpy_kl(np.array([of_target[0], Q]), np.array([of_target[1], P]))
        values.append((beside, binary))
        uncertainty.append(1 - of_target[0])
    uncertainty = np.array(uncertainty)
    counted = np.sort(uncertainty[compared_mask])
    easy = uncertainty <= counted[(len(counted) - 1) // 2]
    beside, binary = np.array(values).T
    n, n_easy = compared_mask.sum(), easy[compared_mask].sum()
    of_hard = (1 - easy_weight) * (binary + beside) * n / max(n - n_easy, 1)
    return np.where(easy, easy_weight * beside * n / n_easy, of_hard)


def numpy_ranked_kl(p, q, tail_index, ranked=5, **_):
    values = numpy_kl(q, p)
    for i, (p_, q_) in enumerate(zip(p, q)):
        symbols = [v for v in range(len(q_)) if v != tail_index]
        a = [v for v in sorted(symbols, key=lambda v: -q_[v])[:ranked] if q_[v] > 0]
        b = sorted(symbols, key=lambda v: -p_[v])[:ranked]
        values[i] += sum(max(0, p_[v] - p_[a[0]]) for v in a)
        values[i] += sum(max(0, p_[w] - p_[v]) for v in a for w in b if q_[v] > q_[w])
    return values


def numpy_clipped_kl(p, q, clip=0.05, **_):
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(q > 0, q * np.log(np.where(q > 0, q, 1) / p), 0)
    return np.minimum(terms, clip).sum(-1)


def numpy_hard(p, q, top, whole_p, smoothing=0.0, **_):
    """Of the smoothed label: 1 - epsilon at the top, epsilon / (V - 1) at each other symbol."""
    with np.errstate(divide="ignore"):
        nll = -np.log(p[np.arange(len(p)), top])
        summed = np.log(whole_p).sum(-1)
    if smoothing == 0:
        return nll
    of_other = smoothing / (whole_p.shape[-1] - 1)
    return (1 - smoothing - of_other) * nll - of_other * summed


REFERENCES = {
    "hard": numpy_hard,
    "forward_kl": lambda p, q, **_: numpy_kl(q, p),
    "reverse_kl": lambda p, q, **_: numpy_kl(p, q),
    "jsd": numpy_jsd,
    "teacher_jsd": lambda p, q, beta=0.5, **_: beta * numpy_kl(q, beta * q + (1 - beta) * p),
    "student_jsd": lambda p, q, beta=0.5, **_: (
        (1 - beta) * numpy_kl(p, beta * q + (1 - beta) * p)
    ),
    "clipped_kl": numpy_clipped_kl,
    "tvd": lambda p, q, **_: 0.5 * np.abs(p - q).sum(-1),
    "skew_kl": lambda p, q, skew=0.1, **_: numpy_kl(q, skew * q + (1 - skew) * p),
    "skew_reverse_kl": lambda p, q, skew=0.1, **_: numpy_kl(p, (1 - skew) * q + skew * p),
    # Without a memory the skew is the largest; see test_mixtures.py.
    "adaptive_skew_kl": lambda p, q, largest=0.1, **_: numpy_kl(
        q, largest * q + (1 - largest) * p
    ),
    "adaptive_skew_reverse_kl": lambda p, q, largest=0.1, **_: numpy_kl(
        p, (1 - largest) * q + largest * p
    ),
    "mixed_kl": lambda p, q, reverse_weight=0.5, **_: (
        reverse_weight * numpy_kl(p, q) + (1 - reverse_weight) * numpy_kl(q, p)
    ),
    "decoupled": numpy_decoupled,
    "ranked_kl": numpy_ranked_kl,
    "atkd": numpy_atkd,
}
# Every divergence with its defaults, and with other values of its parameters.
POINTS = [(name, {}) for name in REFERENCES] + [
    ("hard", {"kd_hard_smoothing": 0.1}),
    ("jsd", {"kd_jsd_beta": 0.1}),
    ("jsd", {"kd_jsd_beta": 0.9}),
    ("teacher_jsd", {"kd_jsd_beta": 0.75}),
    ("student_jsd", {"kd_jsd_beta": 0.15}),
    ("clipped_kl", {"kd_clip": 0.4}),
    ("skew_kl", {"kd_skew": 0.0}),
    ("skew_kl", {"kd_skew": 0.7}),
    ("skew_reverse_kl", {"kd_skew": 0.5}),
    ("adaptive_skew_kl", {"kd_largest_skew": 0.5}),
    ("adaptive_skew_reverse_kl", {"kd_largest_skew": 0.01}),
    ("mixed_kl", {"kd_reverse_weight": 0.0}),
    ("mixed_kl", {"kd_reverse_weight": 0.9}),
    ("decoupled", {"kd_head": 1, "kd_tail_weight": 0.5}),
    ("decoupled", {"kd_head": 3}),
    ("ranked_kl", {"kd_ranked": 1}),
    ("ranked_kl", {"kd_ranked": 3}),
    ("atkd", {"kd_easy_weight": 0.6}),
]
SUPPORTS = [(None, None)] + [
    (k, leftover) for k in (1, 3, "V") for leftover in LEFTOVER.options
]


def reduced(p, q, target, k, leftover):
    """(p, q, target, top) over k symbols and what is left, in numpy."""
    rows = np.arange(len(q))
    order = np.argsort(-q, -1, kind="stable")[:, :k]
    kept = [np.take_along_axis(x, order, -1) for x in (p, q)]
    if leftover == "tail":
        others = np.argsort(-q, -1, kind="stable")[:, k:]
        rest = [np.take_along_axis(x, others, -1).sum(-1) for x in (p, q)]
        kept = [np.concatenate([x, y[:, None]], -1) for x, y in zip(kept, rest)]
    if leftover == "renormalise":
        kept = [x / x.sum(-1, keepdims=True) for x in kept]
    found = order == target[:, None]
    index = np.where(found.any(-1), found.argmax(-1), k if leftover == "tail" else -1)
    return *kept, index, np.zeros_like(rows)


def lprobs(*logits):
    return [torch.log_softmax(x, -1) for x in logits]


def ours(name, settings, p, q, target, compared_mask, k=None, leftover=None):
    """The divergence of (positions, vocab) log-probabilities."""
    if k is None:
        comparator = WholeVocabulary(lambda rows: q[rows], 1)
    else:
        comparator = TopKAndTail(top_k(q, k), LEFTOVER.resolve(leftover, {}), 1)
    support = comparator.compare(p, target, slice(None)).support
    positions = TargetPositions(torch.ones(1, len(target), dtype=torch.bool))
    statistics = PositionStatistics(comparator, p, target, compared_mask, positions)
    return DIVERGENCES.resolve(name, settings)(support, statistics)


def expected(name, settings, p, q, target, compared_mask, k=None, leftover=None):
    """The same in numpy."""
    p, q = (np.exp(x.double().numpy()) for x in (p, q))
    target, top, whole_p = target.numpy(), q.argmax(-1), p
    if k is not None:
        p, q, target, top = reduced(p, q, target, k, leftover)
    names = {one.name: key for key, one in DIVERGENCES.options[name].parameters.items()}
    given = {names[key]: value for key, value in settings.items()}
    given["tail_index"] = k if leftover == "tail" else -1
    return REFERENCES[name](
        *(p, q),
        **{"target": target, "top": top, "compared_mask": compared_mask.numpy()},
        **{"whole_p": whole_p, **given},
    )


def cases():
    rng = np.random.default_rng(1)
    for scale in (0.1, 1, 5):
        yield f"random {scale}", scale * rng.standard_normal((2, 6, 7))
    yield "two outcomes", rng.standard_normal((2, 6, 2))
    ordinary = rng.standard_normal((6, 7))
    peaked = np.where(np.arange(7) == 2, 12.0, 0.0) + 0.01 * ordinary
    yield "peaked teacher", np.stack([ordinary, peaked])
    yield "peaked student", np.stack([peaked, ordinary])
    yield "uniform student", np.stack([np.zeros((6, 7)), ordinary])
    impossible = np.where(np.arange(7) % 3 == 0, -INF, ordinary)
    yield "impossible for both", np.stack([impossible, impossible[::-1]])
    yield "impossible for the teacher", np.stack([ordinary, impossible])
    yield "impossible for the student", np.stack([impossible, ordinary])
    one_hot = np.where(np.arange(7) == np.array([[3]] * 6), 0.0, -INF)
    yield "one-hot teacher", np.stack([ordinary, one_hot])
    yield "both one-hot", np.stack([one_hot, one_hot])


CASES = dict(cases())
TARGET = torch.tensor([1, 0, 0, 1, 1, 0])
COMPARED = torch.tensor([True, True, False, True, True, True])


def test_every_divergence_has_a_definition_here():
    assert set(REFERENCES) == set(DIVERGENCES.options)


@pytest.mark.parametrize("k, leftover", SUPPORTS)
@pytest.mark.parametrize("name, settings", POINTS)
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
def test_equals_float64_computation(name, settings, k, leftover):
    for case in CASES:
        check_equal(name, settings, case, k, leftover)


def check_equal(name, settings, case, k, leftover):
    student, teacher = CASES[case]
    n_possible = int(np.isfinite(teacher).sum(-1).min())  # beyond them the order is anyone's
    k = min(k, n_possible) if isinstance(k, int) else k and student.shape[-1]
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-6)):
        both = lprobs(*(torch.tensor(x, dtype=dtype) for x in (student, teacher)))
        wanted = expected(name, settings, *both, TARGET, COMPARED, k, leftover)
        result = ours(name, settings, *both, TARGET, COMPARED, k, leftover).double().numpy()
        assert not np.isnan(result).any()  # also where the definition is 0 / 0
        assert (result[wanted == INF] > 1e20).all()
        finite = np.isfinite(wanted)
        np.testing.assert_allclose(
            result[finite], wanted[finite], rtol=tolerance, atol=tolerance, err_msg=case
        )


@pytest.mark.parametrize("k, leftover", SUPPORTS)
@pytest.mark.parametrize("name, settings", POINTS)
def test_gradient_passes_gradcheck(name, settings, k, leftover):
    torch.manual_seed(1)
    student = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(6, 5, dtype=torch.float64)
    k = 5 if k == "V" else k

    def divergence(logits):
        return ours(name, settings, *lprobs(logits, teacher), TARGET, COMPARED, k, leftover)

    assert torch.autograd.gradcheck(divergence, student)


@pytest.mark.parametrize("name, settings", POINTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hard_cases_give_no_nan_in_the_gradient(name, settings, dtype):
    for case in CASES:
        student, teacher = (torch.tensor(x, dtype=dtype) for x in CASES[case])
        student.requires_grad_()
        ours(name, settings, *lprobs(student, teacher), TARGET, COMPARED).sum().backward()
        assert not student.grad.isnan().any(), case


@pytest.mark.parametrize("k, leftover", SUPPORTS)
@pytest.mark.parametrize("name, settings", [point for point in POINTS if point[0] != "hard"])
def test_zero_for_equal_distributions(name, settings, k, leftover):
    for logits in (logits for both in CASES.values() for logits in both):
        k_ = logits.shape[-1] if k == "V" else k
        same = lprobs(torch.tensor(logits))[0]
        result = ours(name, settings, same, same, TARGET, COMPARED, k_, leftover)
        np.testing.assert_allclose(result, 0, atol=1e-12)


@pytest.mark.parametrize("name, settings", POINTS)
def test_top_k_of_the_whole_vocabulary_is_the_whole_vocabulary(name, settings):
    torch.manual_seed(1)
    student, teacher = lprobs(*torch.randn(2, 6, 9, dtype=torch.float64))
    whole = ours(name, settings, student, teacher, TARGET, COMPARED)
    for leftover in LEFTOVER.options:
        result = ours(name, settings, student, teacher, TARGET, COMPARED, 9, leftover)
        torch.testing.assert_close(result, whole)


@pytest.mark.parametrize(
    "name, settings, factor, limit",
    [
        ("jsd", {"kd_jsd_beta": 1e-7}, 1e7, "forward_kl"),
        ("jsd", {"kd_jsd_beta": 1 - 1e-7}, 1e7, "reverse_kl"),
        ("skew_kl", {"kd_skew": 1e-7}, 1, "forward_kl"),
        ("skew_reverse_kl", {"kd_skew": 1e-7}, 1, "reverse_kl"),
        ("mixed_kl", {"kd_reverse_weight": 1.0}, 1, "reverse_kl"),
        ("mixed_kl", {"kd_reverse_weight": 0.0}, 1, "forward_kl"),
    ],
)
def test_limits(name, settings, factor, limit):
    torch.manual_seed(1)
    both = lprobs(*torch.randn(2, 6, 9, dtype=torch.float64))
    result = factor * ours(name, settings, *both, TARGET, COMPARED)
    wanted = ours(limit, {}, *both, TARGET, COMPARED)
    torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("skewed, plain", [("skew_kl", 0), ("skew_reverse_kl", 1)])
def test_no_skew_is_the_plain_kl_where_a_probability_is_no_float(skewed, plain):
    """exp(-120) is 0 in float32, and its logarithm is not."""
    impossible, even = torch.tensor([[0.0, -120.0]]), torch.tensor([[0.5, 0.5]]).log()
    both = [(impossible, even), (even, impossible)][plain]
    result = ours(skewed, {"kd_skew": 0.0}, *both, TARGET[:1], COMPARED[:1])
    assert result.item() == pytest.approx(0.5 * 120 - math.log(2), rel=1e-6)


def test_the_halves_of_jsd_add_up():
    torch.manual_seed(1)
    both = lprobs(*torch.randn(2, 6, 9, dtype=torch.float64))
    halves = [
        ours(name, {"kd_jsd_beta": 0.3}, *both, TARGET, COMPARED)
        for name in ("teacher_jsd", "student_jsd")
    ]
    whole = ours("jsd", {"kd_jsd_beta": 0.3}, *both, TARGET, COMPARED)
    torch.testing.assert_close(sum(halves), whole)


def test_atkd_is_a_sum_of_means():
    """The mean of the values is the paper's loss, whatever the sizes of the two groups."""
    torch.manual_seed(1)
    teacher = torch.randn(5, 9, dtype=torch.float64)  # a median of 5: three are easy
    both, target = lprobs(torch.randn(5, 9, dtype=torch.float64), teacher), torch.arange(5)
    mask = torch.ones(5, dtype=torch.bool)
    value = ours("atkd", {"kd_easy_weight": 0.2}, *both, target, mask)
    order = (-both[1][torch.arange(5), target]).argsort()
    easy, hard = order[:3], order[3:]
    p, q = (x.exp().numpy() for x in both)
    beside, binary = [], []
    for i in range(5):
        rest = np.arange(9) != i
        Q, P = q[i, rest].sum(), p[i, rest].sum()
        beside.append(numpy_kl(q[i, rest] / Q, p[i, rest] / P))
        binary.append(numpy_kl(np.array([q[i, i], Q]), np.array([p[i, i], P])))
    beside, binary = np.array(beside), np.array(binary)
    wanted = 0.2 * beside[easy].mean() + 0.8 * (beside + binary)[hard].mean()
    assert value.mean().item() == pytest.approx(wanted)


def test_hand_worked():
    # q = (1/2, 1/2), p = (1/4, 3/4): 1/2 log 2 + 1/2 log 2/3 = 1/2 log 4/3
    student = torch.tensor([[0.25, 0.75]]).log()
    teacher = torch.tensor([[0.5, 0.5]]).log()
    value = ours("forward_kl", {}, student, teacher, TARGET[:1], COMPARED[:1])
    assert value.item() == pytest.approx(math.log(4 / 3) / 2)


def test_bounds():
    torch.manual_seed(1)
    both = lprobs(*20 * torch.randn(2, 6, 9))
    for name, settings, most in [
        ("jsd", {}, math.log(2)),
        ("tvd", {}, 1),
        ("skew_kl", {"kd_skew": 0.1}, -math.log(0.1)),
        ("skew_reverse_kl", {"kd_skew": 0.2}, -math.log(0.2)),
    ]:
        result = ours(name, settings, *both, TARGET, COMPARED)
        assert (result >= 0).all() and (result <= most + 1e-6).all()


@pytest.mark.parametrize("name, settings", POINTS)
def test_what_stands_in_padding_does_not_matter(name, settings):
    torch.manual_seed(1)
    student, teacher = lprobs(*torch.randn(2, 6, 9))
    before = ours(name, settings, student, teacher, TARGET, COMPARED)
    student[~COMPARED], teacher[~COMPARED] = lprobs(*5 * torch.randn(2, 1, 9))
    after = ours(name, settings, student, teacher, TARGET, COMPARED)
    assert torch.equal(before[COMPARED], after[COMPARED])


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("jsd", {"kd_jsd_beta": 1.0}, "--kd-jsd-beta is 1.0, expected .*forward_kl"),
        ("jsd", {"kd_jsd_beta": 0.0}, "--kd-jsd-beta is 0.0"),
        ("skew_kl", {"kd_skew": 1.0}, "--kd-skew is 1.0"),
        ("adaptive_skew_kl", {"kd_largest_skew": 0.001}, "--kd-largest-skew is 0.001"),
        ("adaptive_skew_kl", {"kd_skew_window": 0}, "--kd-skew-window is 0"),
        ("mixed_kl", {"kd_reverse_weight": -0.1}, "--kd-reverse-weight is -0.1"),
        ("hard", {"kd_hard_smoothing": 1.0}, "--kd-hard-smoothing is 1.0"),
        ("decoupled", {"kd_head": 0}, "--kd-head is 0"),
        ("ranked_kl", {"kd_ranked": 0}, "--kd-ranked is 0"),
        ("decoupled", {"kd_tail_weight": -1.0}, "--kd-tail-weight is -1.0"),
        ("atkd", {"kd_easy_weight": 2.0}, "--kd-easy-weight is 2.0"),
        ("clipped_kl", {"kd_clip": 0.0}, "--kd-clip is 0.0"),
        ("l2", {}, "--kd-divergence is 'l2', expected one of forward_kl, reverse_kl, hard"),
    ],
)
def test_out_of_range(name, settings, message):
    with pytest.raises(ValueError, match=message):
        DIVERGENCES.resolve(name, settings)
