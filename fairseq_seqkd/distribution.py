"""Brings student and teacher to one outcome space: the vocabulary, or the teacher's k most
probable symbols and what is left. Divergences never know which.

Logits here are log-probabilities up to a constant a position, so that a model's output, a
logarithm of probabilities and an ensemble's average are all the same thing.
"""

from typing import NamedTuple, Optional

import torch
from torch import Tensor

from fairseq_seqkd.objectives.axis import Axis

# In the place of log 0: its exponential is 0, and products and sums of it stay finite.
LOG_ZERO = -1e30

LEFTOVER = Axis("kd_leftover")


def finite(lprobs):
    """-inf becomes LOG_ZERO: 0 * log 0 is then 0, in the gradient too."""
    return lprobs.clamp(min=LOG_ZERO)


def tempered(logits, temperature):
    """The log-probabilities softmax(logits / temperature).

    Args:
        logits: (positions, vocab), float32
        temperature: positive; larger is flatter
    """
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


class Outcomes(NamedTuple):
    """Two distributions over the same outcomes.

    Attributes:
        student, teacher: (positions, outcomes) log-probabilities
        target: (positions,) the outcome that the target is in; -1 if it is in none
        top: (positions,) the outcome that is the teacher's most probable symbol
        agrees: (positions,) True where that symbol is the student's most probable one too
        rest: the outcome that is all other symbols together; -1 if there is none
    """

    student: Tensor
    teacher: Tensor
    target: Tensor
    top: Tensor
    agrees: Tensor
    rest: int = -1


class Compared(NamedTuple):
    """What a loss is made of, at some positions.

    Attributes:
        target_lprobs: (positions,) the student's log-probability of the target
        summed_lprobs: (positions,) of all symbols together, for label smoothing
        outcomes: :class:`Outcomes` at the temperature; None without a teacher
    """

    target_lprobs: Tensor
    summed_lprobs: Tensor
    outcomes: Optional[Outcomes] = None


class NoTeacher:
    """There is nothing to compare the student with, but the target.

    Attributes:
        known: (batch, length) True where the teacher's distribution is known; None for all
            positions that have a target
    """

    known = None

    def compare(self, logits, target, rows):
        """See :meth:`WholeVocabulary.compare`."""
        found = read(logits, target.unsqueeze(-1), 0)
        return Compared(found.lprobs.squeeze(-1), found.summed)


class WholeVocabulary:
    """The outcomes are the symbols.

    Args:
        teacher_logits: called with a slice of positions, gives their (rows, vocab) logits
        temperature: divides both sides' logits
    """

    known = None

    def __init__(self, teacher_logits, temperature):
        self.teacher_logits = teacher_logits
        self.temperature = temperature

    def compare(self, logits, target, rows):
        """The student beside the teacher.

        Args:
            logits: (rows, vocab) the student's
            target: (rows,) symbols
            rows: the slice of positions that they are of
        Returns:
            :class:`Compared`
        """
        plain = student = torch.log_softmax(logits, dim=-1)
        if self.temperature != 1:
            student = tempered(logits, self.temperature)
        teacher = tempered(self.teacher_logits(rows), self.temperature)
        top = largest_logits(teacher, 1).squeeze(-1)
        agrees = logits.gather(-1, top.unsqueeze(-1)).squeeze(-1) == logits.amax(-1)
        outcomes = Outcomes(student, teacher, target, top, agrees)
        return Compared(*_Picked.apply(plain, target), outcomes)


class TopK(NamedTuple):
    """The teacher's k most probable symbols at every position.

    Attributes:
        symbols: (positions, k) most probable first
        lprobs: (positions, k) their log-probabilities
        rest: (positions,) the log of all other symbols' mass
    """

    symbols: Tensor
    lprobs: Tensor
    rest: Tensor

    def at(self, rows):
        """Those of a slice of positions."""
        return TopK(*(tensor[rows] for tensor in self))

    def first(self, k):
        """The k most probable of them; the others go to the rest."""
        if k >= self.symbols.size(-1):
            return self
        others = torch.cat([self.lprobs[:, k:], self.rest.unsqueeze(-1)], dim=-1)
        return TopK(self.symbols[:, :k], self.lprobs[:, :k], others.logsumexp(-1))


class TopKAndRest:
    """The outcomes are the teacher's k most probable symbols, and what ``leftover`` adds.

    Args:
        top: the teacher's :class:`TopK`, at the temperature
        leftover: a choice of the axis LEFTOVER, what happens to the other symbols' mass
        temperature: divides the student's logits
        known: see :class:`NoTeacher`
    """

    def __init__(self, top, leftover, temperature, known=None):
        self.known = known
        self.top = top
        self.leftover = leftover
        self.temperature = temperature

    def compare(self, logits, target, rows):
        """See :meth:`WholeVocabulary.compare`."""
        top = self.top.at(rows)
        k = top.symbols.size(-1)
        symbols = torch.cat([top.symbols, target.unsqueeze(-1)], dim=-1)
        plain = tempered_read = read(logits, symbols, k)
        if self.temperature != 1:
            tempered_read = read(logits / self.temperature, symbols, k)
        student = self.leftover(tempered_read.lprobs[:, :k], tempered_read.rest)
        teacher = self.leftover(top.lprobs, top.rest)
        rest = k if teacher.size(-1) > k else -1
        is_target = top.symbols == target.unsqueeze(-1)
        outcome = is_target.int().argmax(-1).masked_fill(~is_target.any(-1), rest)
        first = torch.zeros_like(target)
        agrees = tempered_read.lprobs[:, 0] == tempered_read.largest
        outcomes = Outcomes(student, teacher, outcome, first, agrees, rest)
        return Compared(plain.lprobs[:, k], plain.summed, outcomes)


def top_k(logits, k, temperature=1.0):
    """The :class:`TopK` of (positions, vocab) float32 logits."""
    symbols = largest_logits(logits, min(k, logits.size(-1)))
    if temperature != 1:
        logits = logits / temperature
    first = logits.gather(-1, symbols)
    largest = first[:, :1]
    # The rest is summed, not taken as 1 - mass(first), which would lose a small one.
    rest = (logits - largest).exp_().scatter_(-1, symbols, 0.0).sum(-1)
    first = first - largest
    log_total = (rest + first.exp().sum(-1)).log()
    return TopK(symbols, first - log_total.unsqueeze(-1), finite(rest.log() - log_total))


def largest_logits(logits, k, block=64):
    """(positions, k) the symbols with the largest logits, largest first.

    The k largest stand in those k blocks of symbols that have the largest maxima: a search
    among them is several times faster on a CPU than one in the whole row.
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


class _Picked(torch.autograd.Function):
    """The targets' log-probabilities and the sum of all, with one gradient for both."""

    @staticmethod
    def forward(ctx, lprobs, target):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(target)
        ctx.shape = lprobs.shape
        return lprobs.gather(-1, target.unsqueeze(-1)).squeeze(-1), lprobs.sum(-1)

    @staticmethod
    def backward(ctx, of_target, of_summed):
        (target,) = ctx.saved_tensors
        if of_summed is None:
            gradient = of_target.new_zeros(ctx.shape)
        else:
            gradient = of_summed.unsqueeze(-1).expand(ctx.shape).contiguous()
        if of_target is not None:
            gradient.scatter_add_(-1, target.unsqueeze(-1), of_target.unsqueeze(-1))
        return gradient, None


class Read(NamedTuple):
    """What was read off softmax(logits).

    Attributes:
        lprobs: (positions, n) log-probabilities of n symbols
        rest: (positions,) the log of the mass of all but the first k of them
        summed: (positions,) the log-probabilities of the whole vocabulary, summed
        largest: (positions,) the largest of them
    """

    lprobs: Tensor
    rest: Tensor
    summed: Tensor
    largest: Tensor


def read(logits, symbols, k):
    """Log-probabilities of a few symbols, without those of all others being kept.

    Args:
        logits: (positions, vocab), float32
        symbols: (positions, n), the first k of a position all different
        k: how many of them are not in the rest
    Returns:
        :class:`Read`
    """
    return Read(*_Read.apply(logits, symbols, k))


class _Read(torch.autograd.Function):
    """With the gradients written out: one exponential a logit, forth and back together."""

    @staticmethod
    def forward(ctx, logits, symbols, k):
        ctx.set_materialize_grads(False)
        largest = logits.amax(-1, keepdim=True)
        others = (logits - largest).exp_()
        of_first = others.gather(-1, symbols[:, :k])
        # The rest is summed, not taken as 1 - mass(first), which would lose a small one.
        others.scatter_(-1, symbols[:, :k], 0.0)
        rest = others.sum(-1)
        total = rest + of_first.sum(-1)
        log_total = total.log()
        ctx.k = k
        ctx.save_for_backward(symbols, others, of_first, rest, total)
        ctx.mark_non_differentiable(of_largest := -log_total)
        return (
            logits.gather(-1, symbols) - largest - log_total.unsqueeze(-1),
            finite(rest.log() - log_total),
            logits.sum(-1) - logits.size(-1) * (largest.squeeze(-1) + log_total),
            of_largest,
        )

    @staticmethod
    def backward(ctx, of_lprobs, of_rest, of_summed, _):
        symbols, others, of_first, rest, total = ctx.saved_tensors
        first = symbols[:, : ctx.k]
        # Each output has - log total in it, the sum as often as there are symbols.
        shares = torch.zeros_like(total)
        of_others = torch.zeros_like(total)
        if of_lprobs is not None:
            shares += of_lprobs.sum(-1)
        if of_rest is not None:
            shares += of_rest
            of_others = torch.where(rest > tiny(rest), of_rest / rest, of_others)
        if of_summed is not None:
            shares += others.size(-1) * of_summed
        of_total = (-shares / total).unsqueeze(-1)
        gradient = others * (of_total + of_others.unsqueeze(-1))
        gradient.scatter_add_(-1, first, of_first * of_total)
        if of_lprobs is not None:
            gradient.scatter_add_(-1, symbols, of_lprobs)
        if of_summed is not None:
            gradient.add_(of_summed.unsqueeze(-1))
        return gradient, None, None


def tiny(tensor):
    """The smallest positive number of the tensor's type that is not denormal."""
    return torch.finfo(tensor.dtype).tiny


@LEFTOVER.value()
def tail(lprobs, rest):
    """All other symbols are one more outcome: nothing is lost but what they differ in."""
    return torch.cat([lprobs, rest.unsqueeze(-1)], dim=-1)


@LEFTOVER.value()
def renormalise(lprobs, rest):
    """The k symbols are all there is, for student and teacher alike: a biased teacher."""
    return torch.log_softmax(finite(lprobs), dim=-1)


@LEFTOVER.value()
def drop(lprobs, rest):
    """The other symbols are left out and the k keep their probabilities: no distribution,
    so that a divergence may be negative."""
    return lprobs
