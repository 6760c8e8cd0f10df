"""How much one position counts: from per-position statistics to per-position weights.

A weighting returns (positions,) non-negative weights, 0 at positions that do not count, and
is not influenced by what stands there. Its keyword-only arguments are its parameters, or
facts of the batch (see ``statistics.py``), which come by their names.
"""

import math

import torch

from fairseq_seqkd.objectives.axis import Axis, Parameter

WEIGHTINGS = Axis("kd_weighting")

KEEP = Parameter(
    "kd_keep",
    0.5,
    "the share of positions that is kept",
    "a number above 0, to 1",
    lambda x: 0 < x <= 1,
)
FLOOR = Parameter(
    "kd_position_floor",
    0.25,
    "w0: the least weight",
    "a number from 0 to 1",
    lambda x: 0 <= x <= 1,
)
MIDDLE = Parameter(
    "kd_position_middle",
    0.3,
    "tau: where in the row the weight is half way up",
    "a number from 0 to 1",
    lambda x: 0 <= x <= 1,
)
WIDTH = Parameter(
    "kd_position_width",
    0.1,
    "s: how wide the rise is, as a share of the row",
    "a number above 0",
    lambda x: 0 < x < math.inf,
)


@WEIGHTINGS.value()
def uniform(*, counts):
    """1 everywhere."""
    return counts.float()


@WEIGHTINGS.value(keep=KEEP)
def selective(*, student_nll, counts, keep=0.5):
    """1 for the share of positions with the highest student NLL, 0 for the others.

    Source: Wang et al. 2021, Selective Knowledge Distillation for Neural Machine
        Translation (arXiv 2105.12967), batch-level selection.
    """
    return highest(student_nll, counts, keep)


@WEIGHTINGS.value(keep=KEEP)
def entropy_divergence(*, student_entropy, reverse_kl, counts, keep=0.5):
    """Positions where the student is unsure, or sure of something else than the teacher.

    With h the student's entropy and d = KL(student || teacher), both cut at their 98 %
    quantile and scaled to [0, 1] in the batch, the score is h + d - h d; the share with the
    highest score is kept. The weights' mean is 1, so that the loss is the kept positions'
    mean.

    Source: TIP (arXiv 2604.14084).
    """
    h, d = (scaled(values, counts) for values in (student_entropy, reverse_kl))
    kept = highest(h + d - h * d, counts, keep)
    return kept * (counts.sum() / kept.sum().clamp(min=1))


@WEIGHTINGS.value(floor=FLOOR, middle=MIDDLE, width=WIDTH)
def position(*, place, counts, floor=0.25, middle=0.3, width=0.1):
    """w0 + (1 - w0) sigmoid((t / T - tau) / s): from w0 to 1, less for a row's beginning.

    Source: PW-OPSD (arXiv 2605.21606).
    """
    return (floor + (1 - floor) * torch.sigmoid((place - middle) / width)) * counts


def highest(scores, counts, share):
    """1 for that share (rounded up) of counted positions with the highest scores, else 0."""
    kept = math.ceil(share * int(counts.sum()))
    best = scores.masked_fill(~counts, -math.inf).topk(kept).indices
    return torch.zeros_like(scores).scatter(0, best, 1.0)


def scaled(values, counts):
    """Cut at the 98 % quantile of counted positions and mapped to [0, 1]."""
    counted = values[counts]
    if len(counted) == 0:
        return torch.zeros_like(values)
    low, high = counted.min(), counted.quantile(0.98)
    return ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
