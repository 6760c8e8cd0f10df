"""Weightings: how much the divergence at one position counts.

A weighting takes the batch's `PositionStatistics` and returns (positions,) non-negative
weights, 0 outside the counted mask, whatever stands there. Its keyword-only arguments are its
parameters. What it puts into ``statistics.memory`` under the names that ``remembers`` declares
is there at the next batch, also after a resume.
"""

import math

import torch

from fairseq_seqkd.registry import Axis, Parameter

WEIGHTINGS = Axis("kd_weighting")

KEEP = Parameter(
    "kd_keep",
    0.5,
    "the fraction of positions that is kept",
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
    "s: how wide the rise is, as a fraction of the row",
    "a number above 0",
    lambda x: 0 < x < math.inf,
)

QUEUE = Parameter(
    "kd_queue",
    30000,
    "of how many tokens the student's NLL is remembered",
    "a whole number from 1 upwards",
    lambda x: x >= 1,
)

WEIGHTINGS.add_noop("uniform", "Every position counts alike.")


@WEIGHTINGS.option(keep=KEEP)
def selective(statistics, *, keep=0.5):
    """1 for the fraction of positions with the highest student NLL, 0 for the others.

    Source: Wang et al. 2021, Selective Knowledge Distillation for Neural Machine
        Translation (arXiv 2105.12967), batch-level selection.
    """
    return top_fraction_weights(statistics.student_nll, statistics.counted_mask, keep)


@WEIGHTINGS.option(keep=KEEP, queue=QUEUE, remembers=("student_nll",))
def selective_global(statistics, *, keep=0.5, queue=30000):
    """As `selective`, but the highest of a queue of the last tokens' NLL, not of the batch's.

    The batch's NLLs join the queue first, in the place of the oldest. Then 1 for NLLs from
    the least of the queue's highest fraction upwards. Of several processes all tokens join,
    in the order of the ranks, so that all have the same queue.

    Source: Wang et al. 2021 (arXiv 2105.12967), global-level selection, and the authors' code,
        in which each process has a queue of its own, and it is empty after a resume; 30,000
        is for English-German, 50,000 for Chinese-English.
    """
    mask = statistics.counted_mask
    joining = statistics.gather(statistics.student_nll[mask])
    before = statistics.memory.get("student_nll", joining[:0]).to(joining)
    nlls = torch.cat([before, joining])[-queue:]
    statistics.memory["student_nll"] = nlls
    if not len(nlls):
        return torch.zeros_like(statistics.student_nll)
    gate = nlls.topk(math.ceil(keep * len(nlls))).values[-1]
    return ((statistics.student_nll >= gate) & mask).to(statistics.student_nll)


@WEIGHTINGS.option(keep=KEEP)
def entropy_divergence(statistics, *, keep=0.5):
    """Keep positions where the student is unsure, or sure of something else than the teacher.

    With h the student's entropy and d = KL(student || teacher), both cut at their 98 %
    quantile and scaled to [0, 1] in the batch, the score is h + d - h d; the fraction with the
    highest score is kept. The weights' mean is 1, so that the loss is the kept positions'
    mean.

    Source: TIP (arXiv 2604.14084).
    """
    mask = statistics.counted_mask
    h = scaled(statistics.student_entropy, mask)
    d = scaled(statistics.reverse_kl, mask)
    kept = top_fraction_weights(h + d - h * d, mask, keep)
    return kept * (mask.sum() / kept.sum().clamp(min=1))


@WEIGHTINGS.option(floor=FLOOR, middle=MIDDLE, width=WIDTH)
def position(statistics, *, floor=0.25, middle=0.3, width=0.1):
    """w0 + (1 - w0) sigmoid((t / T - tau) / s): from w0 to 1, less for a row's beginning.

    Source: PW-OPSD (arXiv 2605.21606).
    """
    rise = torch.sigmoid((statistics.relative_position - middle) / width)
    return (floor + (1 - floor) * rise) * statistics.counted_mask


def top_fraction_weights(scores, mask, fraction):
    """1 for the fraction (rounded up) of masked positions with the highest scores, else 0."""
    kept = math.ceil(fraction * int(mask.sum()))
    best = scores.masked_fill(~mask, -math.inf).topk(kept).indices
    return torch.zeros_like(scores).scatter(0, best, 1.0)


def scaled(values, mask):
    """Values cut at the 98 % quantile of masked positions and mapped to [0, 1]."""
    counted = values[mask]
    if len(counted) == 0:
        return torch.zeros_like(values)
    low, high = counted.min(), counted.quantile(0.98)
    return ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
