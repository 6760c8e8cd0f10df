"""How the teacher's and the student's distributions at one position are compared.

A divergence takes two (positions, outcomes) float32 tensors of log-probabilities
and returns one value a position, in nats. -inf (an impossible outcome) is allowed
on both sides: where both have it, the outcome adds nothing, and no divergence or
gradient becomes NaN. Written below: q the teacher, p the student.

To add one: write it here. Its keyword-only arguments are its parameters, declared in the
decorator, or facts of the batch (see ``statistics.py``), which come by their names.
"""

import math

import torch

from fairseq_seqkd.distribution import LOG_ZERO, finite
from fairseq_seqkd.objectives.axis import Axis, Parameter

DIVERGENCES = Axis("kd_divergence")

JSD_BETA = Parameter(
    "kd_jsd_beta",
    0.5,
    "the teacher's share in the mixture of the two",
    "a number above 0 and below 1 (at the ends: forward_kl, reverse_kl)",
    lambda x: 0 < x < 1,
)
SKEW = Parameter(
    "kd_skew",
    0.1,
    "how much of the first is mixed into the second distribution",
    "a number from 0 to below 1",
    lambda x: 0 <= x < 1,
)
REVERSE_SHARE = Parameter(
    "kd_reverse_share",
    0.5,
    "lambda: the reverse KL's share beside the forward KL",
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
EASY_SHARE = Parameter(
    "kd_easy_share",
    0.2,
    "weight of the tokens that are easy; the hard ones have the rest",
    "a number from 0 to 1",
    lambda x: 0 <= x <= 1,
)


class _Expectation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, probs, lprobs):
        ctx.save_for_backward(probs)
        value = (probs * lprobs).sum(-1)
        # On a CPU it costs less to look for impossible outcomes than to expect them.
        if value.device.type == "cpu" and value.isfinite().all():
            return value
        return (probs * finite(lprobs)).sum(-1)

    @staticmethod
    def backward(ctx, gradient):
        (probs,) = ctx.saved_tensors
        return None, probs * gradient.unsqueeze(-1)


def expectation(probs, lprobs):
    """(positions,) the sum of probs * lprobs, differentiable in the second; 0 * -inf is 0."""
    return _Expectation.apply(probs, lprobs)


def entropy(lprobs):
    """(positions,) in nats, of (positions, outcomes) log-probabilities; not differentiable."""
    return -expectation(lprobs.exp(), lprobs).detach()


class _KL(torch.autograd.Function):
    """With the gradients written out: half the time, and one exponential in all."""

    @staticmethod
    def forward(ctx, lprobs, other):
        probs = lprobs.exp()
        ctx.save_for_backward(lprobs, other, probs)
        return (finite(lprobs) - finite(other)).mul_(probs).sum(-1)

    @staticmethod
    def backward(ctx, gradient):
        lprobs, other, probs = ctx.saved_tensors
        gradient = gradient.unsqueeze(-1)
        of_lprobs = of_other = None
        if ctx.needs_input_grad[0]:
            of_lprobs = (finite(lprobs) - finite(other)).add_(1).mul_(probs).mul_(gradient)
        if ctx.needs_input_grad[1]:
            of_other = probs * -gradient
        return of_lprobs, of_other


def kl(lprobs, other):
    """KL(lprobs || other), one value a position, in nats."""
    return _KL.apply(lprobs, other)


class _Mixture(torch.autograd.Function):
    """With the gradients written out: autograd's would divide 0 by 0."""

    @staticmethod
    def forward(ctx, share, lprobs, other):
        mixed = lprobs.exp().mul_(share).add_(other.exp(), alpha=1 - share)
        ctx.share = share
        ctx.save_for_backward(lprobs, other, mixed)
        return finite(mixed.log())

    @staticmethod
    def backward(ctx, gradient):
        lprobs, other, mixed = ctx.saved_tensors
        scale = gradient / mixed.clamp(min=torch.finfo(mixed.dtype).tiny)
        of_lprobs = of_other = None
        if ctx.needs_input_grad[1]:
            of_lprobs = lprobs.exp().mul_(scale).mul_(ctx.share)
        if ctx.needs_input_grad[2]:
            of_other = other.exp().mul_(scale).mul_(1 - ctx.share)
        return None, of_lprobs, of_other


def mixture(share, lprobs, other):
    """log(share * exp(lprobs) + (1 - share) * exp(other)).

    Probabilities are added, not their logarithms: what is lost where they are smaller than
    the smallest float has no weight in any divergence.
    """
    return _Mixture.apply(share, lprobs, other) if share > 0 else other


@DIVERGENCES.value()
def forward_kl(student_lprobs, teacher_lprobs, *, teacher_probs, teacher_entropy):
    """KL(q || p), one value a position, in nats.

    Args:
        student_lprobs: (positions, outcomes) log-probabilities, float32
        teacher_lprobs: (positions, outcomes) log-probabilities, float32
        teacher_probs: (positions, outcomes) their exponentials
        teacher_entropy: (positions,) in nats
    Returns:
        (positions,) non-negative; 0 where the two are equal
    Source: Kim & Rush 2016 (arXiv 1606.07947), L_WORD-KD in section 3.1, which is
        the cross-entropy: the KL differs from it by the teacher's entropy, a
        constant for the student, so the gradient is the same and the minimum is 0.
    """
    return -expectation(teacher_probs, student_lprobs) - teacher_entropy


@DIVERGENCES.value()
def reverse_kl(student_lprobs, teacher_lprobs):
    """KL(p || q); args and result as in :func:`forward_kl`.

    Source: Wen et al. 2023, f-distill (arXiv 2307.15190), section 2.
    """
    return kl(student_lprobs, teacher_lprobs)


@DIVERGENCES.value()
def hard(student_lprobs, teacher_lprobs, *, top):
    """-log p of the teacher's most probable symbol.

    Args:
        student_lprobs, teacher_lprobs: (positions, outcomes)
        top: (positions,) the outcome that is that symbol
    Returns:
        (positions,) non-negative; not 0 where the two are equal
    Source: Lin et al. 2020 (arXiv 2009.07253), L_opt of section 3.
    """
    return -finite(student_lprobs.gather(-1, top.unsqueeze(-1))).squeeze(-1)


@DIVERGENCES.value(beta=JSD_BETA)
def jsd(student_lprobs, teacher_lprobs, *, beta=0.5):
    """beta KL(q || m) + (1 - beta) KL(p || m), with m = beta q + (1 - beta) p.

    Divided by beta it tends to KL(q || p) as beta goes to 0; divided by 1 - beta, to
    KL(p || q) as beta goes to 1. At most log 2 for beta = 1/2.

    Args and result as in :func:`forward_kl`; beta: above 0 and below 1
    Source: Agarwal et al. 2023, GKD (arXiv 2306.13649), eq. 1.
    """
    middle = mixture(beta, teacher_lprobs, student_lprobs)
    return beta * kl(teacher_lprobs, middle) + (1 - beta) * kl(student_lprobs, middle)


@DIVERGENCES.value()
def tvd(student_lprobs, teacher_lprobs):
    """Total variation distance, 1/2 sum |q - p|: from 0 to 1.

    Args and result as in :func:`forward_kl`
    Source: Wen et al. 2023, f-distill (arXiv 2307.15190), section 2.
    """
    return 0.5 * (teacher_lprobs.exp() - student_lprobs.exp()).abs().sum(-1)


@DIVERGENCES.value(skew=SKEW)
def skew_kl(student_lprobs, teacher_lprobs, *, skew=0.1):
    """KL(q || skew q + (1 - skew) p): at most -log skew, where KL(q || p) is unbounded.

    Args and result as in :func:`forward_kl`; skew: from 0 (KL(q || p)) to below 1
    Source: Ko et al. 2024, DistiLLM (arXiv 2402.03898), section 3.1.
    """
    return kl(teacher_lprobs, mixture(skew, teacher_lprobs, student_lprobs))


@DIVERGENCES.value(skew=SKEW)
def skew_reverse_kl(student_lprobs, teacher_lprobs, *, skew=0.1):
    """KL(p || (1 - skew) q + skew p): at most -log skew.

    Args and result as in :func:`forward_kl`; skew: from 0 (KL(p || q)) to below 1
    Source: Ko et al. 2024, DistiLLM (arXiv 2402.03898), section 3.1.
    """
    return kl(student_lprobs, mixture(skew, student_lprobs, teacher_lprobs))


@DIVERGENCES.value(reverse_share=REVERSE_SHARE)
def mixed_kl(student_lprobs, teacher_lprobs, *, reverse_share=0.5):
    """lambda KL(p || q) + (1 - lambda) KL(q || p).

    Args and result as in :func:`forward_kl`; reverse_share: lambda, from 0 to 1
    Source: Mixed KL (arXiv 2605.16826).
    """
    forward = kl(teacher_lprobs, student_lprobs)
    return reverse_share * kl(student_lprobs, teacher_lprobs) + (1 - reverse_share) * forward


@DIVERGENCES.value(head=HEAD, tail_weight=TAIL_WEIGHT)
def decoupled(
    student_lprobs, teacher_lprobs, *, mean_tail_mass, rest, head=10, tail_weight=2.0
):
    """KL over {the head's symbols, the tail as one} + b * Q * KL within the tail.

    The head is the teacher's most probable symbols, Q the teacher's mass in the tail, and
    b = tail_weight / (the batch's mean Q).

    Args:
        student_lprobs, teacher_lprobs: (positions, outcomes)
        mean_tail_mass: called with ``head``, the mean of Q over the batch
        rest: the outcome that is several symbols, always in the tail; -1 for none
        head: how many symbols the head has
        tail_weight: from 0 upwards
    Source: Tail decoupling (arXiv 2602.20816).
    """
    student, teacher = finite(student_lprobs), finite(teacher_lprobs)
    symbols = head_of(teacher, rest, head)
    in_head = (teacher.exp() * (teacher - student)).gather(-1, symbols).sum(-1)
    tails = [x.scatter(-1, symbols, LOG_ZERO) for x in (student, teacher)]
    student_tail, teacher_tail = (x.logsumexp(-1, keepdim=True) for x in tails)
    within = kl(tails[1] - teacher_tail, tails[0] - student_tail)
    mass = teacher_tail.squeeze(-1).exp()
    as_one = mass * (teacher_tail - student_tail).squeeze(-1)
    return in_head + as_one + tail_weight * mass / mean_tail_mass(head) * within


def head_of(teacher_lprobs, rest, head):
    """(positions, head) the most probable outcomes that are one symbol."""
    candidates = teacher_lprobs if rest < 0 else teacher_lprobs[:, :rest]
    return candidates.topk(min(head, candidates.size(-1))).indices


def tail_mass(teacher_lprobs, rest, head):
    """(positions,) the teacher's mass beside its ``head`` most probable symbols."""
    lprobs = finite(teacher_lprobs)
    return lprobs.scatter(-1, head_of(lprobs, rest, head), LOG_ZERO).logsumexp(-1).exp()


@DIVERGENCES.value(easy_share=EASY_SHARE)
def split(student_lprobs, teacher_lprobs, *, target, median_surprise, easy_share=0.2):
    """What beside the target is like, for easy tokens; that and the target, for hard ones.

    A token is easy if the teacher's uncertainty of the target, 1 - q(target), is at most the
    batch's median. With D the KL over all outcomes but the target, renormalised (0 where
    the teacher has no mass there), and B the KL over {target, not the target}:
    easy_share * D if it is easy, (1 - easy_share) * (B + D) if it is hard.

    Args:
        student_lprobs, teacher_lprobs: (positions, outcomes)
        target: (positions,) the target's outcome, -1 for none
        median_surprise: the batch's median of -log q(target)
        easy_share: from 0 to 1
    Source: Zhong et al. 2024, ATKD (arXiv 2402.11890).
    """
    is_target = one_hot(target, teacher_lprobs.size(-1))
    student, teacher = finite(student_lprobs), finite(teacher_lprobs)
    others = [x.masked_fill(is_target, LOG_ZERO) for x in (student, teacher)]
    student_rest, teacher_rest = (x.logsumexp(-1, keepdim=True) for x in others)
    beside = kl(others[1] - teacher_rest, others[0] - student_rest)
    mass = teacher_rest.squeeze(-1).exp()
    beside = torch.where(mass > 0, beside, torch.zeros_like(beside))
    of_target = (teacher.exp() * (teacher - student)).masked_fill(~is_target, 0.0).sum(-1)
    binary = of_target + mass * (teacher_rest - student_rest).squeeze(-1)
    is_easy = surprise(teacher_lprobs, target) <= median_surprise
    return torch.where(is_easy, easy_share * beside, (1 - easy_share) * (binary + beside))


def surprise(teacher_lprobs, target):
    """(positions,) -log q(target), in nats; of no outcome, that of an impossible one.

    It has the order of 1 - q(target), without losing small differences near 1.
    """
    found = teacher_lprobs.gather(-1, target.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -finite(found).masked_fill(target < 0, LOG_ZERO)


def one_hot(outcome, size):
    """(positions, size) True at the outcome; nowhere for -1."""
    return torch.arange(size, device=outcome.device) == outcome.unsqueeze(-1)
