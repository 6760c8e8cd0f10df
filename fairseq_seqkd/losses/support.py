"""The outcomes on which student and teacher are compared: the vocabulary, or the top k and a
tail.

A comparator (`NoTeacher`, `WholeVocabulary`, `TopKAndTail`) brings both sides to one `Support`,
so that a divergence never knows which it is. Logits are log-probabilities up to a constant a
position: a model's output, log-probabilities and an ensemble's mean are all the same thing.
"""

import functools
from dataclasses import dataclass, field
from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from fairseq_seqkd.registry import Axis

# In the place of log 0: its exponential is 0, and products and sums of it stay finite.
LOG_ZERO = -1e30

LEFTOVER = Axis("kd_leftover")


def finite(lprobs):
    """Replace -inf by LOG_ZERO: 0 * log 0 is then 0, in the gradient too."""
    return lprobs.clamp(min=LOG_ZERO)


def tiny(tensor):
    """The smallest positive number of the tensor's type that is not denormal."""
    return torch.finfo(tensor.dtype).tiny


def expectation(probs, lprobs):
    """(positions,) sum of probs * lprobs; 0 * -inf is 0."""
    value = (probs * lprobs).sum(-1)
    # On a CPU it costs less to look for impossible outcomes than to expect them.
    if value.device.type == "cpu" and value.isfinite().all():
        return value
    return (probs * finite(lprobs)).sum(-1)


def tempered(logits, temperature):
    """log softmax(logits / temperature).

    Args:
        logits: (positions, vocab), float32
        temperature: positive; larger is flatter
    """
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


@dataclass
class Support:
    """Student and teacher on the same outcomes, at some positions.

    Attributes:
        student_lprobs, teacher_lprobs: (positions, outcomes) at the temperature
        target_index: (positions,) the outcome of the target; -1 if it is in none
        teacher_top_index: (positions,) the outcome of the teacher's most probable symbol
        tail_index: the outcome that is all other symbols together; -1 if there is none
        agreement_mask: (positions,) True where both have the same most probable symbol
        positions: the slice of the batch's positions that these are
        summed_lprobs: (positions,) the student's log-probabilities summed over the vocabulary,
            and its size; None where the outcomes are the vocabulary
    """

    student_lprobs: Tensor
    teacher_lprobs: Tensor
    target_index: Optional[Tensor] = None
    teacher_top_index: Optional[Tensor] = None
    tail_index: int = -1
    agreement_mask: Optional[Tensor] = None
    positions: slice = field(default_factory=lambda: slice(None))
    summed_lprobs: Optional[Tuple[Tensor, int]] = None

    @functools.cached_property
    def teacher_probs(self):
        """(positions, outcomes) exp of the teacher's log-probabilities."""
        return self.teacher_lprobs.exp()

    @functools.cached_property
    def teacher_entropy(self):
        """(positions,) in nats, over the outcomes."""
        return -expectation(self.teacher_probs, self.teacher_lprobs)


class Comparison(NamedTuple):
    """The student at some positions, beside the target and the teacher.

    Attributes:
        target_lprobs: (positions,) log p of the target
        summed_lprobs: (positions,) the sum of log p over the vocabulary, for label smoothing
        support: `Support`; None without a teacher
    """

    target_lprobs: Tensor
    summed_lprobs: Tensor
    support: Optional[Support] = None


class NoTeacher:
    """Compares the student with the target alone.

    Attributes:
        teacher_mask: (positions,) True where the teacher's distribution is known; None for
            all
    """

    teacher_mask = None

    def compare(self, logits, target, positions):
        """A `Comparison` without support; arguments as for `WholeVocabulary.compare`."""
        gathered = gather_lprobs(logits, target.unsqueeze(-1), 0)
        return Comparison(gathered.lprobs.squeeze(-1), gathered.summed_lprobs)


class WholeVocabulary:
    """Compares on all symbols.

    Args:
        teacher_logits: called with a slice of positions, gives their (n, vocab) logits
        temperature: divides both sides' logits
    """

    teacher_mask = None

    def __init__(self, teacher_logits, temperature):
        self.teacher_logits = teacher_logits
        self.temperature = temperature

    def compare(self, logits, target, positions):
        """The student beside the teacher, a `Comparison`.

        Args:
            logits: (n, vocab) the student's
            target: (n,) symbols
            positions: the slice of n positions that they are of
        """
        lprobs = student_lprobs = torch.log_softmax(logits, dim=-1)
        if self.temperature != 1:
            student_lprobs = tempered(logits, self.temperature)
        teacher_lprobs = tempered(self.teacher_logits(positions), self.temperature)
        top = largest_logits(teacher_lprobs, 1).squeeze(-1)
        agreement_mask = logits.gather(-1, top.unsqueeze(-1)).squeeze(-1) == logits.amax(-1)
        support = Support(student_lprobs, teacher_lprobs, target, top)
        support.agreement_mask, support.positions = agreement_mask, positions
        target_lprobs = lprobs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        return Comparison(target_lprobs, lprobs.sum(-1), support)


class TopK(NamedTuple):
    """The teacher's k most probable symbols at every position.

    Attributes:
        symbols: (positions, k) most probable first
        lprobs: (positions, k) their log-probabilities
        tail_lprobs: (positions,) the log of all other symbols' mass
    """

    symbols: Tensor
    lprobs: Tensor
    tail_lprobs: Tensor

    def at(self, positions):
        """The top k of a slice of positions."""
        return TopK(*(tensor[positions] for tensor in self))

    def first(self, k):
        """The top k of a larger top; the other symbols go to the tail."""
        if k >= self.symbols.size(-1):
            return self
        others = torch.cat([self.lprobs[:, k:], self.tail_lprobs.unsqueeze(-1)], dim=-1)
        return TopK(self.symbols[:, :k], self.lprobs[:, :k], others.logsumexp(-1))


class TopKAndTail:
    """Compares on the teacher's k most probable symbols, and on what ``leftover`` adds.

    Args:
        top: the teacher's `TopK`, at the temperature
        leftover: a resolved option of the axis LEFTOVER, for the other symbols' mass
        temperature: divides the student's logits
        teacher_mask: see `NoTeacher`
    """

    def __init__(self, top, leftover, temperature, teacher_mask=None):
        self.teacher_mask = teacher_mask
        self.top = top
        self.leftover = leftover
        self.temperature = temperature

    def compare(self, logits, target, positions):
        """A `Comparison`; arguments as for `WholeVocabulary.compare`."""
        top = self.top.at(positions)
        k = top.symbols.size(-1)
        symbols = torch.cat([top.symbols, target.unsqueeze(-1)], dim=-1)
        plain = gathered = gather_lprobs(logits, symbols, k)
        if self.temperature != 1:
            gathered = gather_lprobs(logits / self.temperature, symbols, k)
        teacher_lprobs = self.leftover(top.lprobs, top.tail_lprobs)
        tail_index = k if teacher_lprobs.size(-1) > k else -1
        is_target = top.symbols == target.unsqueeze(-1)
        support = Support(
            self.leftover(gathered.lprobs[:, :k], gathered.tail_lprobs),
            teacher_lprobs,
            is_target.int().argmax(-1).masked_fill(~is_target.any(-1), tail_index),
            torch.zeros_like(target),
            tail_index,
            gathered.lprobs[:, 0] == gathered.largest_lprobs,
            positions,
            (gathered.summed_lprobs, logits.size(-1)),
        )
        return Comparison(plain.lprobs[:, k], plain.summed_lprobs, support)


def top_k(logits, k, temperature=1.0):
    """The `TopK` of (positions, vocab) float32 logits."""
    symbols = largest_logits(logits, min(k, logits.size(-1)))
    if temperature != 1:
        logits = logits / temperature
    first = logits.gather(-1, symbols)
    largest = first[:, :1]
    # The tail is summed, not taken as 1 - mass(first), which would lose a small one.
    tail = (logits - largest).exp_().scatter_(-1, symbols, 0.0).sum(-1)
    first = first - largest
    log_total = (tail + first.exp().sum(-1)).log()
    return TopK(symbols, first - log_total.unsqueeze(-1), finite(tail.log() - log_total))


def largest_logits(logits, k, block=64):
    """(positions, k) the symbols with the largest logits, largest first.

    The k largest are in the k blocks of symbols that have the largest maxima: a search among
    them is several times faster on a CPU than one in the whole row.
    """
    in_blocks = logits.size(-1) // block * block
    if 2 * k * block > in_blocks:
        return logits.topk(k).indices
    blocks = logits[:, :in_blocks].unflatten(-1, (-1, block))
    best = blocks.amax(-1).topk(k).indices.unsqueeze(-1)
    symbols = (best * block + torch.arange(block, device=logits.device)).flatten(1)
    beyond = torch.arange(in_blocks, logits.size(-1), device=logits.device)
    symbols = torch.cat([symbols, beyond.expand(len(logits), -1)], dim=-1)
    return symbols.gather(-1, logits.gather(-1, symbols).topk(k).indices)


class GatheredLprobs(NamedTuple):
    """Log-probabilities gathered from log softmax(logits).

    Attributes:
        lprobs: (positions, n) of n symbols
        tail_lprobs: (positions,) the log of the mass of all but the first k of them
        summed_lprobs: (positions,) the sum of the whole vocabulary's log-probabilities
        largest_lprobs: (positions,) the largest
    """

    lprobs: Tensor
    tail_lprobs: Tensor
    summed_lprobs: Tensor
    largest_lprobs: Tensor


def gather_lprobs(logits, symbols, k):
    """Log softmax at the given symbols; keeps one float a symbol instead of the vocabulary.

    With z the logits and p = softmax(z), the gradients of the outputs for z_v are

        lprobs_i       [v = symbol_i] - p_v
        tail_lprobs    [v in the tail] p_v / tail - p_v
        summed_lprobs  1 - V p_v

    Args:
        logits: (positions, vocab), float32
        symbols: (positions, n), the first k of a position all different
        k: how many of them are not in the tail
    Returns:
        `GatheredLprobs`
    """
    return GatheredLprobs(*_GatherLprobs.apply(logits, symbols, k))


class _GatherLprobs(torch.autograd.Function):
    """`gather_lprobs`, with one exponential a logit for value and gradient together."""

    @staticmethod
    def forward(ctx, logits, symbols, k):
        ctx.set_materialize_grads(False)
        largest = logits.amax(-1, keepdim=True)
        others = (logits - largest).exp_()
        of_first = others.gather(-1, symbols[:, :k])
        # The tail is summed, not taken as 1 - mass(first), which would lose a small one.
        others.scatter_(-1, symbols[:, :k], 0.0)
        tail = others.sum(-1)
        total = tail + of_first.sum(-1)
        log_total = total.log()
        ctx.k = k
        ctx.save_for_backward(symbols, others, of_first, tail, total)
        ctx.mark_non_differentiable(of_largest := -log_total)
        return (
            logits.gather(-1, symbols) - largest - log_total.unsqueeze(-1),
            finite(tail.log() - log_total),
            logits.sum(-1) - logits.size(-1) * (largest.squeeze(-1) + log_total),
            of_largest,
        )

    @staticmethod
    def backward(ctx, grad_lprobs, grad_tail, grad_summed, _):
        symbols, others, of_first, tail, total = ctx.saved_tensors
        first = symbols[:, : ctx.k]
        # Each output has - log total in it, the sum as often as there are symbols.
        grad_log_total = torch.zeros_like(total)
        grad_others = torch.zeros_like(total)
        if grad_lprobs is not None:
            grad_log_total += grad_lprobs.sum(-1)
        if grad_tail is not None:
            grad_log_total += grad_tail
            grad_others = torch.where(tail > tiny(tail), grad_tail / tail, grad_others)
        if grad_summed is not None:
            grad_log_total += others.size(-1) * grad_summed
        grad_total = (-grad_log_total / total).unsqueeze(-1)
        gradient = others * (grad_total + grad_others.unsqueeze(-1))
        gradient.scatter_add_(-1, first, of_first * grad_total)
        if grad_lprobs is not None:
            gradient.scatter_add_(-1, symbols, grad_lprobs)
        if grad_summed is not None:
            gradient.add_(grad_summed.unsqueeze(-1))
        return gradient, None, None


@LEFTOVER.option()
def tail(lprobs, tail_lprobs):
    """All other symbols are one more outcome: only their differences are lost."""
    return torch.cat([lprobs, tail_lprobs.unsqueeze(-1)], dim=-1)


@LEFTOVER.option()
def renormalise(lprobs, tail_lprobs):
    """The k symbols are the only ones, for student and teacher alike: a biased teacher."""
    return torch.log_softmax(finite(lprobs), dim=-1)


@LEFTOVER.option()
def drop(lprobs, tail_lprobs):
    """The other symbols are left out, and the k keep their probabilities.

    They are no distribution then, and a divergence may be negative.
    """
    return lprobs
