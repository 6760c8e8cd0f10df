"""Masks and statistics of a batch's positions, for weightings and divergences that ask."""

import functools
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from fairseq_seqkd.losses import divergences
from fairseq_seqkd.losses.blockwise_sum import (
    TargetPositions,
    at_least_float32,
    position_slices,
)
from fairseq_seqkd.losses.support import finite, tiny


class Masks(NamedTuple):
    """Kinds of a batch's target positions, (positions,) each.

    Attributes:
        data_target_mask: True at targets of the data
        student_position_mask: True in rows that the student generated
        compared_mask: True where the teacher's distribution is known
    """

    data_target_mask: Tensor
    student_position_mask: Tensor
    compared_mask: Tensor


@dataclass
class PositionStatistics:
    """Statistics of all positions of a batch that have a target, without gradient.

    Each is computed when it is first asked for, which costs a pass over the batch (with a live
    teacher also its output layer). Values outside the counted mask mean nothing.

    Attributes:
        comparator: compares student and teacher, such as `WholeVocabulary`
        logits: (positions, vocab) the student's
        target: (positions,) symbols
        counted_mask: (positions,) True for the positions of batch statistics: compared ones
            whose divergence has a weight, or all compared ones if none has
        positions: `TargetPositions`, where they stand in the batch
        memory: {name: tensor} that an option remembers from batch to batch
        gather: joins (n,) values of all data-parallel processes
        update: number of updates before this one; None in validation
        student_rows_mask: (batch,) True for rows that the student generated; None: there are
            none
        gold: (batch, length of gold) gold targets; None: the target is gold
    """

    comparator: Any
    logits: Tensor
    target: Tensor
    counted_mask: Tensor
    positions: TargetPositions
    memory: Dict[str, Tensor] = field(default_factory=dict)
    gather: Callable = lambda values: values
    update: Optional[int] = None
    student_rows_mask: Optional[Tensor] = None
    gold: Optional[Tensor] = None
    _computed: Dict[Tuple, Any] = field(default_factory=dict, repr=False)

    @functools.cached_property
    def relative_position(self):
        """(positions,) the position in its row, from above 0 to 1 for the row's last."""
        counted = self.positions.spread(self.counted_mask)
        lengths = counted.sum(-1, keepdim=True).clamp(min=1)
        return self.positions.take(counted.cumsum(-1) / lengths)

    @functools.cached_property
    def in_gold_mask(self):
        """(positions,) True at counted positions whose target stands in its row's gold."""
        if self.gold is None:
            return self.counted_mask
        gold = self.gold[self.positions.rows]
        return (self.target.unsqueeze(-1) == gold).any(-1) & self.counted_mask

    @functools.cached_property
    def student_nll(self):
        """(positions,) -log p(target), in nats."""
        return self._map(lambda comparison: -finite(comparison.target_lprobs))

    @functools.cached_property
    def student_entropy(self):
        """(positions,) over the support, in nats."""
        return self._map(lambda comparison: divergences.entropy(comparison.support))

    @functools.cached_property
    def reverse_kl(self):
        """(positions,) KL(student || teacher), in nats."""
        return self._map(lambda comparison: divergences.reverse_kl(comparison.support))

    @functools.cached_property
    def teacher_nll(self):
        """(positions,) -log q(target), in nats; see `divergences.teacher_nll`."""
        return self._map(lambda comparison: divergences.teacher_nll(comparison.support))

    @functools.cached_property
    def student_target_nll(self):
        """(positions,) -log p(target) over the support; see `divergences.target_nll`."""
        return self._map(
            lambda comparison: divergences.target_nll(
                comparison.support, comparison.support.student_lprobs
            )
        )

    @functools.cached_property
    def median_teacher_nll(self):
        """The median of `teacher_nll` over counted positions, one number."""
        return self.teacher_nll[self.counted_mask].median()

    @functools.cached_property
    def easy_fraction(self):
        """The fraction of counted positions whose `teacher_nll` is at most the median.

        1 if no position counts.
        """
        counted = self.teacher_nll[self.counted_mask]
        is_easy = counted <= self.median_teacher_nll
        return is_easy.double().mean() if len(counted) else torch.ones_like(self.teacher_nll[0])

    def mean_tail_mass(self, head):
        """The mean of the teacher's mass beside its ``head`` most probable symbols."""
        return self.once(_mean_tail_mass, head)

    def row_means(self, values):
        """(batch,) means of (positions,) values over each row's counted positions, or 0."""
        counted = torch.where(self.counted_mask, values, torch.zeros_like(values))
        numbers = self.positions.spread(self.counted_mask).sum(-1)
        return self.positions.spread(counted).sum(-1) / numbers.clamp(min=1)

    @torch.no_grad()
    def once(self, statistic, *arguments):
        """A function of these statistics and of the arguments, called once for the batch."""
        key = (statistic, *arguments)
        if key not in self._computed:
            self._computed[key] = statistic(self, *arguments)
        return self._computed[key]

    @torch.no_grad()
    def _map(self, statistic):
        """(positions,) a function of `Comparison`, applied to a few positions at a time."""
        logits, parts = self.logits.detach(), []
        for positions in position_slices(*logits.shape, logits.device):
            chunk, target = at_least_float32(logits[positions]), self.target[positions]
            parts.append(statistic(self.comparator.compare(chunk, target, positions)))
        return torch.cat(parts)


def _mean_tail_mass(statistics, head):
    """See `PositionStatistics.mean_tail_mass`."""
    mass = statistics._map(lambda comparison: divergences.tail_mass(comparison.support, head))
    mask = statistics.counted_mask
    # Where nothing is compared there is no mean, and NaN would reach the gradient.
    some = mass[mask] if mask.any() else torch.ones_like(mass)
    return some.mean().clamp(min=tiny(mass))
