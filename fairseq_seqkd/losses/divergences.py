"""Divergences: how the teacher's and the student's distributions at one position differ.

A divergence takes a `Support` (below, q is the teacher's distribution, p the student's) and
the batch's `PositionStatistics`, and returns one value a position, in nats. -inf (an impossible
outcome) is allowed on both sides: where both have it, the outcome adds nothing, and no
divergence or gradient becomes NaN.

To add one, write it here, or in ``mixtures.py`` if it compares with a mixture of the two: its
keyword-only arguments are its parameters, which the decorator declares. Flags, range checks and
documentation follow.
"""

import math

import torch

from fairseq_seqkd.losses.support import LOG_ZERO, expectation, finite, largest_logits, tiny
from fairseq_seqkd.registry import Axis, Parameter

DIVERGENCES = Axis("kd_divergence")
# Those with an upper bound have nearly no gradient where the student is near uniform: a mean of
# 0.005 (skew KL) to 0.0013 (TVD) on a position's logits, where forward KL has 0.74.
BOUNDED = {
    *("jsd", "teacher_jsd", "student_jsd", "tvd", "skew_kl", "skew_reverse_kl"),
    *("adaptive_skew_kl", "adaptive_skew_reverse_kl"),
}

REVERSE_WEIGHT = Parameter(
    "kd_reverse_weight",
    0.5,
    "lambda: the reverse KL's weight beside the forward KL",
    "a number from 0 to 1",
    lambda x: 0 <= x <= 1,
)
HEAD = Parameter(
    "kd_head",
    10,
    "how many of the teacher's most probable symbols are the head",
    "a whole number from 1 upwards",
    lambda x: x >= 1,
)
TAIL_WEIGHT = Parameter(
    "kd_tail_weight",
    2.0,
    "beta: how much the tail counts",
    "a number from 0 upwards",
    lambda x: 0 <= x < math.inf,
)
CLIP = Parameter(
    "kd_clip",
    0.05,
    "the most that one symbol may add, in nats",
    "a number above 0",
    lambda x: 0 < x < math.inf,
)
HARD_SMOOTHING = Parameter(
    "kd_hard_smoothing",
    0.0,
    "label smoothing of the teacher's most probable symbol: epsilon is for all other symbols",
    "a number from 0 to below 1",
    lambda x: 0 <= x < 1,
)
EASY_WEIGHT = Parameter(
    "kd_easy_weight",
    0.2,
    "weight of the mean over easy tokens; that over hard ones has the rest",
    "a number from 0 to 1",
    lambda x: 0 <= x <= 1,
)


class _KL(torch.autograd.Function):
    """With the gradients written out: half the time, and one exponential in all."""

    @staticmethod
    def forward(ctx, lprobs, other_lprobs):
        probs, difference = lprobs.exp(), finite(lprobs) - finite(other_lprobs)
        ctx.save_for_backward(difference, probs)
        return (difference * probs).sum(-1)

    @staticmethod
    def backward(ctx, gradient):
        difference, probs = ctx.saved_tensors
        gradient = gradient.unsqueeze(-1)
        grad_lprobs = grad_other = None
        if ctx.needs_input_grad[0]:
            grad_lprobs = difference.add(1).mul_(probs).mul_(gradient)
        if ctx.needs_input_grad[1]:
            grad_other = probs * -gradient
        return grad_lprobs, grad_other


def kl(lprobs, other_lprobs):
    """KL(lprobs || other_lprobs), one value a position, in nats."""
    return _KL.apply(lprobs, other_lprobs)


def entropy(support):
    """The student's entropy over the support, (positions,), in nats."""
    lprobs = finite(support.student_lprobs)
    return -(lprobs.exp() * lprobs).sum(-1)


@DIVERGENCES.option()
def forward_kl(support, statistics=None):
    """Forward KL, KL(q || p): high where the teacher is probable and the student is not.

    Args:
        support: `Support` with (positions, outcomes) float32 log-probabilities
        statistics: `PositionStatistics`, for the divergences that need some
    Returns:
        (positions,) 0 where the two are equal; non-negative, except with the leftover ``drop``
    Source: Kim & Rush 2016 (arXiv 1606.07947), L_WORD-KD in section 3.1, which is
        the cross-entropy: the KL differs from it by the teacher's entropy, a
        constant for the student, so the gradient is the same and the minimum is 0.
    """
    cross_entropy = -expectation(support.teacher_probs, support.student_lprobs)
    return cross_entropy - support.teacher_entropy


@DIVERGENCES.option()
def reverse_kl(support, statistics=None):
    """Reverse KL, KL(p || q): high where the student is probable and the teacher is not.

    Arguments and result as in `forward_kl`.

    Source: Wen et al. 2023, f-distill (arXiv 2307.15190), section 2.
    """
    return kl(support.student_lprobs, support.teacher_lprobs)


@DIVERGENCES.option(smoothing=HARD_SMOOTHING)
def hard(support, statistics=None, *, smoothing=0.0):
    """NLL of the teacher's most probable symbol, which may be label-smoothed.

    Smoothing is over the whole vocabulary, also where the support is the teacher's top k.

    Arguments as in `forward_kl`; not 0 where the two are equal; smoothing: epsilon, from 0 to
    below 1
    Source: Lin et al. 2020 (arXiv 2009.07253), L_opt of section 3; the authors' code smooths
        it on CNN/DM, as fairseq smooths the NLL of targets.
    """
    top = support.teacher_top_index.unsqueeze(-1)
    nll = -finite(support.student_lprobs.gather(-1, top)).squeeze(-1)
    if smoothing == 0:
        return nll
    lprobs = support.student_lprobs
    summed, size = support.summed_lprobs or (finite(lprobs).sum(-1), lprobs.size(-1))
    of_symbol = smoothing / (size - 1)
    return (1 - smoothing - of_symbol) * nll - of_symbol * finite(summed)


@DIVERGENCES.option()
def tvd(support, statistics=None):
    """Total variation distance, 1/2 sum |q - p|.

    Arguments and result as in `forward_kl`; from 0 to 1.
    Source: Wen et al. 2023, f-distill (arXiv 2307.15190), section 2.
    """
    return 0.5 * (support.teacher_probs - support.student_lprobs.exp()).abs().sum(-1)


@DIVERGENCES.option(reverse_weight=REVERSE_WEIGHT)
def mixed_kl(support, statistics=None, *, reverse_weight=0.5):
    """Both KLs: lambda KL(p || q) + (1 - lambda) KL(q || p).

    Arguments and result as in `forward_kl`; reverse_weight: lambda, from 0 to 1
    Source: Mixed KL (arXiv 2605.16826).
    """
    log_q, log_p = support.teacher_lprobs, support.student_lprobs
    return reverse_weight * kl(log_p, log_q) + (1 - reverse_weight) * kl(log_q, log_p)


@DIVERGENCES.option(clip=CLIP)
def clipped_kl(support, statistics=None, *, clip=0.05):
    """Forward KL of which each symbol adds at most a little: sum min(q log(q / p), clip).

    Negative terms are not clipped, so that the sum may be negative.

    Arguments as in `forward_kl`; clip: in nats, above 0
    Source: PW-OPSD (arXiv 2605.21606).
    """
    log_ratio = finite(support.teacher_lprobs) - finite(support.student_lprobs)
    return (support.teacher_probs * log_ratio).clamp(max=clip).sum(-1)


@DIVERGENCES.option(head=HEAD, tail_weight=TAIL_WEIGHT)
def decoupled(support, statistics, *, head=10, tail_weight=2.0):
    """KL over the teacher's top symbols and the tail as one, and KL within the tail.

    KL over {the head's symbols, the tail as one} + b * Q * KL within the tail.

    The head is the teacher's most probable symbols, Q the teacher's mass in the tail, and
    b = tail_weight / (the batch's mean Q). An outcome that is several symbols is in the tail.

    Args:
        support: as in `forward_kl`
        statistics: its ``mean_tail_mass``
        head: how many symbols the head has
        tail_weight: from 0 upwards
    Source: Tail decoupling (arXiv 2602.20816).
    """
    log_p, log_q = finite(support.student_lprobs), finite(support.teacher_lprobs)
    symbols = head_of(support, head)
    in_head = (log_q.exp() * (log_q - log_p)).gather(-1, symbols).sum(-1)
    log_p_tail, log_q_tail = (x.scatter(-1, symbols, LOG_ZERO) for x in (log_p, log_q))
    log_P, log_Q = (x.logsumexp(-1, keepdim=True) for x in (log_p_tail, log_q_tail))
    within = kl(log_q_tail - log_Q, log_p_tail - log_P)
    Q = log_Q.squeeze(-1).exp()
    as_one = Q * (log_Q - log_P).squeeze(-1)
    return in_head + as_one + tail_weight * Q / statistics.mean_tail_mass(head) * within


def head_of(support, head):
    """(positions, head) the teacher's most probable outcomes that are one symbol."""
    return largest_symbols(support, support.teacher_lprobs, head)


def largest_symbols(support, lprobs, n):
    """(positions, n) the most probable outcomes that are one symbol, most probable first.

    Args:
        lprobs: (positions, outcomes) the student's or the teacher's
        n: as many as there are, if they are fewer
    """
    candidates = finite(lprobs if support.tail_index < 0 else lprobs[:, : support.tail_index])
    return largest_logits(candidates, min(n, candidates.size(-1)))


def tail_mass(support, head):
    """(positions,) the teacher's mass beside its ``head`` most probable symbols."""
    lprobs = finite(support.teacher_lprobs)
    return lprobs.scatter(-1, head_of(support, head), LOG_ZERO).logsumexp(-1).exp()


@DIVERGENCES.option(easy_weight=EASY_WEIGHT)
def atkd(support, statistics, *, easy_weight=0.2):
    """KL over the other outcomes for easy tokens; also target or not, for hard ones.

    A token is easy if the teacher's uncertainty of the target, 1 - q(target), is at most the
    batch's median. With D the KL over all outcomes but the target, renormalised (0 where
    the teacher has no mass there), and B the KL over {target, not the target}, the batch's
    loss is a sum of means: easy_weight * mean(D) over the easy tokens, and
    (1 - easy_weight) * mean(B + D) over the hard ones. So a token's value is divided by the
    fraction of tokens that are of its kind.

    Args:
        support: as in `forward_kl`
        statistics: its ``median_teacher_nll`` and ``easy_fraction``
        easy_weight: from 0 to 1
    Source: Zhong et al. 2024, ATKD (arXiv 2402.11890).
    """
    log_p, log_q = finite(support.student_lprobs), finite(support.teacher_lprobs)
    is_target = one_hot(support.target_index, log_q.size(-1))
    log_p_others, log_q_others = (x.masked_fill(is_target, LOG_ZERO) for x in (log_p, log_q))
    log_P, log_Q = (x.logsumexp(-1, keepdim=True) for x in (log_p_others, log_q_others))
    D = kl(log_q_others - log_Q, log_p_others - log_P)
    Q = log_Q.squeeze(-1).exp()
    D = torch.where(Q > 0, D, torch.zeros_like(D))
    of_target = (log_q.exp() * (log_q - log_p)).masked_fill(~is_target, 0.0).sum(-1)
    B = of_target + Q * (log_Q - log_P).squeeze(-1)
    is_easy = teacher_nll(support) <= statistics.median_teacher_nll
    of_easy = easy_weight / statistics.easy_fraction
    of_hard = (1 - easy_weight) / (1 - statistics.easy_fraction).clamp(min=tiny(D))
    return torch.where(is_easy, of_easy * D, of_hard * (B + D))


def teacher_nll(support):
    """Teacher NLL of the target, (positions,), in nats; see `target_nll`.

    It has the order of 1 - q(target), without losing small differences near 1.
    """
    return target_nll(support, support.teacher_lprobs)


def target_nll(support, lprobs):
    """NLL of the target's outcome, (positions,), in nats.

    For a target outside the support it is -LOG_ZERO, as if its probability were 0.

    Args:
        lprobs: (positions, outcomes) the student's or the teacher's
    """
    index = support.target_index
    gathered = lprobs.gather(-1, index.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -finite(gathered).masked_fill(index < 0, LOG_ZERO)


def one_hot(index, size):
    """(positions, size) True at the index; nowhere for -1."""
    return torch.arange(size, device=index.device) == index.unsqueeze(-1)
