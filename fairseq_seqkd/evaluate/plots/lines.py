"""BLEU by source length, and validation curves: names at the line ends. Needs matplotlib."""

import itertools

from matplotlib.ticker import MaxNLocator

from fairseq_seqkd.evaluate.plots.labels import Label, label_line_ends
from fairseq_seqkd.evaluate.plots.style import (
    ROUND_STEPS,
    fix_limits,
    line_styles,
    new_figure,
    plain_number,
)

_Y_LABELS = {
    "bleu": "validation BLEU",
    "loss": "validation loss of each criterion, bits per token",
}


def draw_lengths(report):
    """BLEU of every model by source length; greedy if that was run."""
    rows = [_simplest_row(report, model.name) for model in report.models]
    figure, axes = new_figure("tokens in the source sentence", f"BLEU, {rows[0].decoding}")
    groups = [f"{low}-{high}" for low, high in report.length_groups]
    axes.set_xticks(range(len(groups)), groups)
    _draw_lines(report, axes, {row.model: list(enumerate(row.bleu_by_length)) for row in rows})
    return figure


def _simplest_row(report, name):
    rows = [row for row in report.rows if row.model == name]
    return min(rows, key=lambda row: (row.engine != rows[0].engine, row.beam))


def draw_curves(report, metric):
    """A validation curve of every training that has one."""
    curves = {name: c[metric] for name, c in report.curves.items() if metric in c}
    figure, axes = new_figure("updates (training steps)", _Y_LABELS[metric])
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=ROUND_STEPS, integer=True))
    axes.xaxis.set_major_formatter(plain_number)
    _draw_lines(report, axes, without_common_beginnings(curves))
    return figure


def without_common_beginnings(curves):
    """Let a curve that begins with the points of an earlier one begin where they part.

    Args:
        curves: {name: [(update, value), ...]}
    Returns:
        the curves, from their last common point on
    """
    shortened, earlier = {}, []
    for name, points in curves.items():
        points = [tuple(point) for point in points]
        common = max((_common_length(points, other) for other in earlier), default=0)
        shortened[name] = points[max(0, common - 1) :]
        earlier.append(points)
    return shortened


def _common_length(points, others):
    """The number of points at the beginning that are equal."""
    pairs = zip(points, others)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _draw_lines(report, axes, lines):
    styles = line_styles(report)
    axes.margins(x=0.02)
    for name, points in lines.items():
        axes.plot(*zip(*points), marker="o", markersize=4, **styles[name])
    fix_limits(axes)
    labels = [Label(name, points[-1], styles[name]["color"]) for name, points in lines.items()]
    label_line_ends(axes, labels)
