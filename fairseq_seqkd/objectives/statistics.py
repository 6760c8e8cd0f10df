"""What is known of a batch's positions, for divergences and weightings that ask."""

import functools

import torch

from fairseq_seqkd.distribution import finite, tiny
from fairseq_seqkd.objectives import divergences
from fairseq_seqkd.objectives.chunks import chunks_of, precise


class Statistics:
    """Facts, each computed when it is first asked for, without gradient.

    Args:
        space: what compares the two, such as
            :class:`~fairseq_seqkd.distribution.WholeVocabulary`
        logits: (positions, vocab) the student's; positions = batch * length
        symbols: (batch, length) the target's symbols
        counts: (batch, length) True for positions that are compared
    Attributes, all (positions,) unless it says otherwise:
        counts: True for positions that are compared
        place: how far in its row a position is, above 0 to 1 for the row's last
        student_nll: of the target, in nats
        student_entropy: over the outcomes, in nats
        reverse_kl: KL(student || teacher), in nats
        median_surprise: one number, the median of the teacher's NLL of the target, in nats
    """

    def __init__(self, space, logits, symbols, counts):
        self._space = space
        self._logits = logits.detach()
        self._symbols = symbols.flatten()
        self._counts = counts
        self.counts = counts.flatten()
        self._tail_masses = {}

    @functools.cached_property
    def place(self):
        lengths = self._counts.sum(-1, keepdim=True).clamp(min=1)
        return (self._counts.cumsum(-1) / lengths).flatten()

    @functools.cached_property
    def student_nll(self):
        return self._survey(lambda compared: -finite(compared.target_lprobs))

    @functools.cached_property
    def student_entropy(self):
        return self._survey(lambda compared: divergences.entropy(compared.outcomes.student))

    @functools.cached_property
    def reverse_kl(self):
        return self._survey(lambda compared: divergences.reverse_kl(*compared.outcomes[:2]))

    @functools.cached_property
    def median_surprise(self):
        surprise = self._survey(
            lambda compared: divergences.surprise(
                compared.outcomes.teacher, compared.outcomes.target
            )
        )
        return surprise[self.counts].median()

    def mean_tail_mass(self, head):
        """The mean of the teacher's mass beside its ``head`` most probable symbols."""
        if head not in self._tail_masses:
            mass = self._survey(
                lambda compared: divergences.tail_mass(
                    compared.outcomes.teacher, compared.outcomes.rest, head
                )
            )
            # Where nothing is compared there is no mean, and NaN would reach the gradient.
            some = mass[self.counts] if self.counts.any() else torch.ones_like(mass)
            self._tail_masses[head] = some.mean().clamp(min=tiny(mass))
        return self._tail_masses[head]

    @torch.no_grad()
    def _survey(self, fact):
        """(positions,) a fact of all positions, from what is compared at some of them."""
        found = []
        for rows in chunks_of(*self._logits.shape, self._logits.device):
            logits = precise(self._logits[rows])
            found.append(fact(self._space.compare(logits, self._symbols[rows], rows)))
        return torch.cat(found)


class AtPositions:
    """Facts of some positions of a batch, for a divergence.

    Args:
        batch: :class:`Statistics`
        outcomes: :class:`~fairseq_seqkd.distribution.Outcomes` at these positions
    Attributes, beside those of the batch:
        target, top, rest: of the outcomes
        teacher_probs: (positions, outcomes)
        teacher_entropy: (positions,) in nats
    """

    def __init__(self, batch, outcomes):
        self._batch = batch
        self._teacher = outcomes.teacher
        self.target, self.top, self.rest = outcomes.target, outcomes.top, outcomes.rest

    def __getattr__(self, name):
        return getattr(self._batch, name)

    @functools.cached_property
    def teacher_probs(self):
        return self._teacher.exp()

    @functools.cached_property
    def teacher_entropy(self):
        return -divergences.expectation(self.teacher_probs, self._teacher)
