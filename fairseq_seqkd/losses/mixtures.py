"""Divergences to a mixture of teacher and student: Jensen-Shannon, skew KL, adaptive skew KL.

Of a text (the target of a row), the gap is how much more probable its own author finds it than
the other model does: qbar - pbar for data rows, which are the teacher's or like it, pbar - qbar
for student rows, where qbar and pbar are exp(mean log-probability of the text's tokens).
"""

import torch

from fairseq_seqkd.losses.divergences import DIVERGENCES, forward_kl, reverse_kl
from fairseq_seqkd.losses.support import finite, tiny
from fairseq_seqkd.registry import Parameter

JSD_BETA = Parameter(
    "kd_jsd_beta",
    0.5,
    "the teacher's weight in the mixture of the two",
    "a number above 0 and below 1 (at the ends: forward_kl, reverse_kl)",
    lambda x: 0 < x < 1,
)
SKEW = Parameter(
    "kd_skew",
    0.1,
    "weight of the KL's first distribution in the mixture that it is compared with",
    "a number from 0 to below 1",
    lambda x: 0 <= x < 1,
)
DETACHED = Parameter(
    "kd_detached_mixture",
    False,
    "no gradient through the student's part of the mixture",
)
LEAST_SKEW = 0.01
LARGEST_SKEW = Parameter(
    "kd_largest_skew",
    0.1,
    "a0: the skew of the first updates, and the largest afterwards",
    f"a number from {LEAST_SKEW} to below 1",
    lambda x: LEAST_SKEW <= x < 1,
)
WINDOW = Parameter(
    "kd_skew_window",
    10,
    "over how many updates the mean gap is taken that other gaps are compared with",
    "a whole number from 1 upwards",
    lambda x: x >= 1,
)


def mix(log_p, q, weight):
    """p, m = weight q + (1 - weight) p, and log m.

    Probabilities are mixed, not their logarithms: one that is smaller than the smallest float
    is lost, and has no weight in any divergence.

    Args:
        log_p, q: (positions, outcomes) the student's log-probabilities, the teacher's
            probabilities
        weight: of q, a number or (positions, 1)
    """
    p = log_p.exp()
    m = torch.lerp(p, q, weight if torch.is_tensor(weight) else float(weight))
    m = m.clamp_(min=tiny(m))
    return p, m, m.log()


def log_ratio(p, log_p, log_m):
    """log(p / m), and its mean under p, (positions,); any finite number where p is 0."""
    ratio = log_p - log_m
    mean = (p * ratio).sum(-1)
    # On a CPU it costs less to look for impossible outcomes than to expect them.
    if mean.device.type != "cpu" or not mean.isfinite().all():
        ratio = finite(log_p) - log_m
        mean = (p * ratio).sum(-1)
    return ratio, mean


# The gradients are written out: half the time. The teacher has none.


class _JensenShannon(torch.autograd.Function):
    """beta KL(q || m) + (1 - beta) KL(p || m): those through m cancel out."""

    @staticmethod
    def forward(ctx, log_p, q, entropy_of_q, beta):
        p, _, log_m = mix(log_p, q, beta)
        ratio, kl_of_p = log_ratio(p, log_p, log_m)
        ctx.beta = beta
        ctx.save_for_backward(p, ratio)
        kl_of_q = -(q * log_m).sum(-1) - entropy_of_q
        return beta * kl_of_q + (1 - beta) * kl_of_p

    @staticmethod
    def backward(ctx, gradient):
        p, ratio = ctx.saved_tensors
        return ratio.mul(p).mul_((1 - ctx.beta) * gradient.unsqueeze(-1)), None, None, None


class _TeacherToMixture(torch.autograd.Function):
    """KL(q || m)."""

    @staticmethod
    def forward(ctx, log_p, q, entropy_of_q, weight):
        p, m, log_m = mix(log_p, q, weight)
        ctx.weight = weight
        ctx.save_for_backward(p, q, m)
        return -(q * log_m).sum(-1) - entropy_of_q

    @staticmethod
    def backward(ctx, gradient):
        p, q, m = ctx.saved_tensors
        scale = (ctx.weight - 1) * gradient.unsqueeze(-1)
        return torch.div(q, m).mul_(p).mul_(scale), None, None, None


class _StudentToMixture(torch.autograd.Function):
    """KL(p || m)."""

    @staticmethod
    def forward(ctx, log_p, q, weight, is_detached):
        p, m, log_m = mix(log_p, q, weight)
        ratio, value = log_ratio(p, log_p, log_m)
        ctx.weight, ctx.is_detached = weight, is_detached
        ctx.save_for_backward(p, m, ratio)
        return value

    @staticmethod
    def backward(ctx, gradient):
        p, m, ratio = ctx.saved_tensors
        terms = ratio + 1
        if not ctx.is_detached:
            terms -= torch.div(p, m).mul_(1 - ctx.weight)
        return terms.mul_(p).mul_(gradient.unsqueeze(-1)), None, None, None


def teacher_to_mixture(support, weight):
    """KL(q || weight q + (1 - weight) p), (positions,), in nats."""
    of_teacher = support.teacher_probs, support.teacher_entropy
    return _TeacherToMixture.apply(support.student_lprobs, *of_teacher, weight)


def student_to_mixture(support, weight, is_detached=False):
    """KL(p || weight q + (1 - weight) p), (positions,), in nats.

    Args:
        is_detached: whether the p inside the mixture has no gradient
    """
    p, q = support.student_lprobs, support.teacher_probs
    return _StudentToMixture.apply(p, q, weight, is_detached)


@DIVERGENCES.option(beta=JSD_BETA)
def jsd(support, statistics=None, *, beta=0.5):
    """Jensen-Shannon: beta KL(q || m) + (1 - beta) KL(p || m), m = beta q + (1 - beta) p.

    Divided by beta it tends to KL(q || p) as beta goes to 0; divided by 1 - beta, to
    KL(p || q) as beta goes to 1. At most log 2 for beta = 1/2.

    Arguments and result as in `forward_kl`; beta: above 0 and below 1
    Source: Agarwal et al. 2023, GKD (arXiv 2306.13649), eq. 1.
    """
    of_teacher = support.teacher_probs, support.teacher_entropy
    return _JensenShannon.apply(support.student_lprobs, *of_teacher, beta)


@DIVERGENCES.option(beta=JSD_BETA)
def teacher_jsd(support, statistics=None, *, beta=0.5):
    """The first half of `jsd`, beta KL(q || m): for text that the teacher generated.

    Arguments and result as in `jsd`.
    Source: Wen et al. 2023, f-distill (arXiv 2307.15190), section 2; the authors' code has a
        beta of 0.75 for translation and 0.15 otherwise, as this project counts it.
    """
    return beta * teacher_to_mixture(support, beta)


@DIVERGENCES.option(beta=JSD_BETA)
def student_jsd(support, statistics=None, *, beta=0.5):
    """The second half of `jsd`, (1 - beta) KL(p || m): for text that the student generated.

    Arguments, result and source as in `teacher_jsd`.
    """
    return (1 - beta) * student_to_mixture(support, beta)


@DIVERGENCES.option(skew=SKEW)
def skew_kl(support, statistics=None, *, skew=0.1):
    """Skew KL, KL(q || skew q + (1 - skew) p).

    At most -log skew, where KL(q || p) is unbounded.

    Arguments and result as in `forward_kl`; skew: from 0 (KL(q || p)) to below 1
    Source: Ko et al. 2024, DistiLLM (arXiv 2402.03898), section 3.1.
    """
    if not torch.is_tensor(skew) and skew == 0:
        return forward_kl(support)
    return teacher_to_mixture(support, skew)


@DIVERGENCES.option(skew=SKEW, detached=DETACHED)
def skew_reverse_kl(support, statistics=None, *, skew=0.1, detached=False):
    """Skew reverse KL, KL(p || (1 - skew) q + skew p).

    At most -log skew, where KL(p || q) is unbounded.

    Args:
        support, statistics: as in `forward_kl`
        skew: from 0 (KL(p || q)) to below 1
        detached: whether the p inside the mixture has no gradient
    Source: Ko et al. 2024, DistiLLM (arXiv 2402.03898), section 3.1; detached: the released
        code of Ko et al. 2025, DistiLLM-2 (arXiv 2503.07067).
    """
    if not torch.is_tensor(skew) and skew == 0:
        return reverse_kl(support)
    return student_to_mixture(support, 1 - skew, detached)


@DIVERGENCES.option(largest=LARGEST_SKEW, window=WINDOW, remembers=("skew_gaps",))
def adaptive_skew_kl(support, statistics, *, largest=0.1, window=10):
    """`skew_kl` whose skew is smaller for texts that teacher and student see alike.

    Arguments and result as in `skew_kl`; largest, window: as in `adaptive_skew`
    Source: Ko et al. 2025, DistiLLM-2 (arXiv 2503.07067), for the teacher's text.
    """
    skew = statistics.once(adaptive_skew, largest, window)[support.positions]
    return skew_kl(support, skew=skew.unsqueeze(-1))


@DIVERGENCES.option(
    largest=LARGEST_SKEW, window=WINDOW, detached=DETACHED, remembers=("skew_gaps",)
)
def adaptive_skew_reverse_kl(support, statistics, *, largest=0.1, window=10, detached=False):
    """`skew_reverse_kl` whose skew is smaller for texts that teacher and student see alike.

    Arguments and result as in `skew_reverse_kl`; largest, window: as in `adaptive_skew`
    Source: Ko et al. 2025, DistiLLM-2 (arXiv 2503.07067), for the student's text.
    """
    skew = statistics.once(adaptive_skew, largest, window)[support.positions]
    return skew_reverse_kl(support, skew=skew.unsqueeze(-1), detached=detached)


def adaptive_skew(statistics, largest, window):
    """(positions,) a = clip(1 - (1 - a0) m / gap, 0.01, a0), the same in all of a row.

    m is the mean gap of the first updates in which there were such rows, apart for data rows
    and for student rows; until it is known a = a0.

    Args:
        statistics: `PositionStatistics`; the sums behind m are in ``memory["skew_gaps"]``
        largest: a0, from 0.01 to below 1
        window: how many updates m is over
    Returns:
        without gradient: the skew is a number for the loss
    Source: the released code of DistiLLM-2, which adds 1e-5 to the gap, takes m over the
        first logging window, has gradients in a, and in fact never sets m.
    """
    positions = statistics.positions
    gap_mask = positions.spread(statistics.counted_mask).any(-1)
    of_student = torch.zeros_like(gap_mask)
    if statistics.student_rows_mask is not None:
        of_student = statistics.student_rows_mask
    qbar = (-statistics.row_means(statistics.teacher_nll)).exp()
    pbar = (-statistics.row_means(statistics.student_target_nll)).exp()
    gaps = torch.where(of_student, pbar - qbar, qbar - pbar)
    means = _mean_gaps(statistics, gaps, of_student, gap_mask, window)
    m = means[of_student.long()].to(gaps)
    skew = (1 - (1 - largest) * m / (gaps + 1e-5)).clamp(LEAST_SKEW, largest)
    skew = torch.where(m.isnan(), torch.full_like(skew, largest), skew)
    return skew[positions.rows]


def _mean_gaps(statistics, gaps, of_student, gap_mask, window):
    """(2,) the mean gap of data rows and of student rows; NaN until its window has passed.

    The memory has, for both, the sum and number of gaps in the window, the window's first
    update, and the last update seen.

    Args:
        gaps, of_student: (rows,)
        gap_mask: (rows,) True where a row has counted positions
    """
    empty = torch.tensor([[0.0, 0.0, -1.0, -1.0]] * 2, dtype=torch.float64)
    memory = statistics.memory.get("skew_gaps", empty).clone().cpu()
    if statistics.update is not None:
        memory[:, 3] = statistics.update
        for kind, rows in zip(memory, (~of_student, of_student)):
            joining = statistics.gather(gaps[rows & gap_mask]).double()
            if len(joining) and kind[2] < 0:
                kind[2] = statistics.update
            if statistics.update < kind[2] + window:
                kind[:2] += torch.stack([joining.sum(), joining.new_tensor(len(joining))]).cpu()
        statistics.memory["skew_gaps"] = memory
    has_passed = (memory[:, 2] >= 0) & (memory[:, 3] >= memory[:, 2] + window)
    means = memory[:, 0] / memory[:, 1]
    return torch.where(has_passed, means, torch.full_like(means, float("nan")))
