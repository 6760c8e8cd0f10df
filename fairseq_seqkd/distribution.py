"""Brings student and teacher to one outcome space: the vocabulary, or the teacher's k most
probable symbols and what is left. Divergences never know which.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_seqkd.objectives.axis import Axis

# In the place of log 0: its exponential is 0, and products and sums of it stay finite.
LOG_ZERO = -1e30

LEFTOVER = Axis("kd_leftover")


def finite(lprobs):
    """-inf becomes LOG_ZERO: 0 * log 0 is then 0, in the gradient too."""
    return lprobs.clamp(min=LOG_ZERO)


def tempered(lprobs, temperature):
    """The distribution softmax(logits / temperature), from its log-probabilities.

    Log-probabilities are logits up to a constant, so an ensemble's average can be
    tempered like a single model's output.

    Args:
        lprobs: (positions, vocab) log-probabilities, float32
        temperature: positive; 1 leaves the distribution as it is, larger is flatter
    Returns:
        (positions, vocab) log-probabilities
    """
    if temperature == 1:
        return lprobs
    return torch.log_softmax(lprobs / temperature, dim=-1)


class Outcomes(NamedTuple):
    """Two distributions over the same outcomes.

    Attributes:
        student, teacher: (positions, outcomes) log-probabilities
        target: (positions,) the outcome that the target is in; -1 if it is in none
        top: (positions,) the outcome that is the teacher's most probable symbol
        top_symbol: (positions,) that symbol
        rest: the outcome that is all other symbols together; -1 if there is none
    """

    student: Tensor
    teacher: Tensor
    target: Tensor
    top: Tensor
    top_symbol: Tensor
    rest: int = -1


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


def whole_vocabulary(student_lprobs, teacher_lprobs, target):
    """The outcomes are the symbols.

    Args:
        student_lprobs, teacher_lprobs: (positions, vocab)
        target: (positions,) symbols
    """
    top = teacher_lprobs.max(-1).indices
    return Outcomes(student_lprobs, teacher_lprobs, target, top, top)


def top_k(teacher_lprobs, k):
    """The :class:`TopK` of (positions, vocab) log-probabilities."""
    lprobs, symbols = teacher_lprobs.topk(min(k, teacher_lprobs.size(-1)))
    return TopK(symbols, lprobs, log_mass_without(teacher_lprobs, symbols))


def log_mass_without(lprobs, symbols):
    """(positions,) the log of the mass of all but these (positions, k) symbols.

    Summed rather than taken as 1 - mass(symbols), which would lose a small rest.
    """
    return lprobs.scatter(-1, symbols, LOG_ZERO).logsumexp(-1)


def top_k_and_rest(student_lprobs, top, target, leftover):
    """The outcomes are the teacher's k most probable symbols, and what ``leftover`` adds.

    Args:
        student_lprobs: (positions, vocab)
        top: the teacher's :class:`TopK`
        target: (positions,) symbols
        leftover: a choice of the axis LEFTOVER, what happens to the other symbols' mass
    """
    students = student_lprobs.gather(-1, top.symbols)
    student = leftover(students, lambda: log_mass_without(student_lprobs, top.symbols))
    teacher = leftover(top.lprobs, lambda: top.rest)
    k = top.symbols.size(-1)
    is_target = top.symbols == target.unsqueeze(-1)
    rest = k if teacher.size(-1) > k else -1
    outcome = is_target.int().argmax(-1).masked_fill(~is_target.any(-1), rest)
    first = torch.zeros_like(target)
    return Outcomes(student, teacher, outcome, first, top.symbols[:, 0], rest)


@LEFTOVER.value()
def tail(lprobs, rest):
    """All other symbols are one more outcome: nothing is lost but what they differ in."""
    return torch.cat([lprobs, rest().unsqueeze(-1)], dim=-1)


@LEFTOVER.value()
def renormalise(lprobs, rest):
    """The k symbols are all there is, for student and teacher alike: a biased teacher."""
    return torch.log_softmax(finite(lprobs), dim=-1)


@LEFTOVER.value()
def drop(lprobs, rest):
    """The other symbols are left out and the k keep their probabilities: no distribution,
    so that a divergence may be negative."""
    return lprobs
