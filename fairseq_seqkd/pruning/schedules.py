"""When weights are pruned: the share of the final sparsity that is in force after some updates.

A schedule is a pure function of the updates done, so that a resumed training goes on with it.
Weights are pruned at an update at which its value rises.
"""

from fairseq_seqkd.registry import Axis, Parameter

SCHEDULES = Axis("prune_schedule")

START = Parameter(
    "prune_start_update",
    0,
    "the update before which nothing is pruned",
    "a whole number from 0 upwards",
    lambda x: x >= 0,
)
END = Parameter(
    "prune_end_update",
    0,
    "the update from which on the sparsity is --prune-sparsity; to be given",
    "the update at which pruning ends, from 1 upwards",
    lambda x: x >= 1,
)
EVERY = Parameter(
    "prune_every",
    100,
    "updates from one pruning to the next",
    "a whole number from 1 upwards",
    lambda x: x >= 1,
)


@SCHEDULES.option(start=START)
def one_shot(update, *, start):
    """All at once."""
    return float(update >= start)


@SCHEDULES.option(start=START, end=END, every=EVERY)
def cubic(update, *, start, end, every):
    """1 - (1 - (t - t0) / (t1 - t0))^3, fast at first, for t = t0, t0 + every, ... and t1.

    Args:
        update: updates done
        start, end: t0 and t1
    Source: Zhu & Gupta 2017, To prune, or not to prune (arXiv 1710.01878), eq. 1, from an
        initial sparsity of 0.
    """
    if update >= end:
        return 1.0
    last = start + max(update - start, 0) // every * every
    return 1 - (1 - (last - start) / (end - start)) ** 3
