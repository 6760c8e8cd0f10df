"""Pruning schedules: the fraction of the final sparsity in force after a number of updates.

A schedule is a pure function of the number of updates, so a resumed training continues with it.
Weights are pruned at every update at which its value rises.
"""

from fairseq_seqkd.registry import Axis, Parameter

SCHEDULES = Axis("prune_schedule")

START = Parameter(
    "prune_start_update",
    0,
    "the first update at which weights are pruned",
    "a whole number from 0 upwards",
    lambda x: x >= 0,
)
END = Parameter(
    "prune_end_update",
    0,
    "the update at which the sparsity reaches --prune-sparsity; required",
    "the update at which pruning ends, from 1 upwards",
    lambda x: x >= 1,
)
EVERY = Parameter(
    "prune_every",
    100,
    "the number of updates between two prunings",
    "a whole number from 1 upwards",
    lambda x: x >= 1,
)


@SCHEDULES.option(start=START)
def one_shot(update, *, start):
    """All at once: 0 before the start, 1 from then on."""
    return float(update >= start)


@SCHEDULES.option(start=START, end=END, every=EVERY)
def cubic(update, *, start, end, every):
    """Gradual: 1 - (1 - (t - t0) / (t1 - t0))^3 for t = t0, t0 + every, ... and t1.

    Args:
        update: number of updates done
        start, end: t0 and t1
        every: updates between two prunings
    Source: Zhu & Gupta 2017, To prune, or not to prune (arXiv 1710.01878), eq. 1, from an
        initial sparsity of 0.
    """
    if update >= end:
        return 1.0
    last = start + max(update - start, 0) // every * every
    return 1 - (1 - (last - start) / (end - start)) ** 3
