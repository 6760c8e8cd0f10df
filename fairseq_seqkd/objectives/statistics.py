"""What is known of every position of a batch, for divergences and weightings that ask."""

import functools

import torch

from fairseq_seqkd.distribution import finite
from fairseq_seqkd.objectives import divergences


def entropy(lprobs):
    """(positions,) in nats, of (positions, outcomes) log-probabilities."""
    # On a CPU some rows at a time stay in the cache, which is several times faster.
    some = 32 if lprobs.device.type == "cpu" else max(len(lprobs), 1)
    return torch.cat([-(rows.exp() * finite(rows)).sum(-1) for rows in lprobs.split(some)])


class Statistics:
    """Facts, each computed when it is first asked for, without gradient.

    Args:
        outcomes: the two distributions, :class:`~fairseq_seqkd.distribution.Outcomes`
        lprobs: (positions, vocab) the student's log-probabilities
        symbols: (batch, length) the target's symbols
        counts: (batch, length) True for positions that are compared
    Attributes, all (positions,) with positions = batch * length:
        target, top: outcomes, as in ``outcomes``; ``rest`` likewise, but a number
        counts: True for positions that are compared
        place: how far in its row a position is, above 0 to 1 for the row's last
        student_nll: of the target, in nats
        student_entropy, teacher_entropy: over the outcomes, in nats
        reverse_kl: KL(student || teacher), in nats
    """

    def __init__(self, outcomes, lprobs, symbols, counts):
        self._outcomes = outcomes._replace(student=outcomes.student.detach())
        self._lprobs = lprobs.detach()
        self._symbols = symbols
        self._counts = counts
        self.counts = counts.flatten()
        self.target, self.top, self.rest = outcomes.target, outcomes.top, outcomes.rest

    @functools.cached_property
    def place(self):
        lengths = self._counts.sum(-1, keepdim=True).clamp(min=1)
        return (self._counts.cumsum(-1) / lengths).flatten()

    @functools.cached_property
    def student_nll(self):
        symbols = self._symbols.reshape(-1, 1)
        return -finite(self._lprobs.gather(-1, symbols)).squeeze(-1)

    @functools.cached_property
    def student_entropy(self):
        return entropy(self._outcomes.student)

    @functools.cached_property
    def teacher_entropy(self):
        return entropy(self._outcomes.teacher)

    @functools.cached_property
    def reverse_kl(self):
        return divergences.reverse_kl(self._outcomes.student, self._outcomes.teacher)
