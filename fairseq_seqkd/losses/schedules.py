"""beta(t), the probability that a row keeps its data target as the decoder's context.

A schedule is a pure function of the training's progress, so that a resumed run goes on with it.
Source: Lin et al. 2020 (arXiv 2009.07253), section 4, and the authors' code.
"""

import math

from fairseq_seqkd.registry import Axis, Parameter

SCHEDULES = Axis("kd_schedule")

BETA = Parameter(
    "kd_beta",
    0.5,
    "the probability that a row keeps its data target",
    "a number from 0 to 1",
    lambda x: 0 <= x <= 1,
)
FINAL = Parameter(
    "kd_final_beta",
    0.0,
    "that probability at --max-update",
    "a number from 0 to 1",
    lambda x: 0 <= x <= 1,
)
BASE = Parameter(
    "kd_schedule_base",
    200.0,
    "b of beta = b^(-t / N); ImitKD* takes 2 or 10",
    "a number above 1",
    lambda x: 1 < x < math.inf,
)
WARMUP = Parameter(
    "kd_schedule_warmup",
    0.0,
    "w: beta is 1 during this fraction of the updates, and b^-(t / N - w) afterwards",
    "a number from 0 to below 1",
    lambda x: 0 <= x < 1,
)


@SCHEDULES.option(beta=BETA)
def constant(progress, *, beta):
    """beta is the same at every update.

    ``progress`` may be None.
    """
    return beta


@SCHEDULES.option(final=FINAL)
def linear(progress, *, final=0.0):
    """beta = 1 - (1 - final) t / N.

    Args:
        progress: t / N, from 0 to 1
        final: its last value
    """
    return 1 - (1 - final) * progress


@SCHEDULES.option(base=BASE, warmup=WARMUP)
def exponential(progress, *, base=200.0, warmup=0.0):
    """beta = base^-(t / N - w), and 1 before t / N = w; w is 0 by default."""
    return base ** -max(progress - warmup, 0)


@SCHEDULES.option()
def reverse_sigmoid(progress):
    """beta = 1 / (1 + exp(20 (t / N - 1 / 2)))."""
    return 1 / (1 + math.exp(20 * (progress - 0.5)))


def needs_progress(schedule):
    """Whether a resolved schedule depends on how far training is."""
    return schedule.func is not constant
