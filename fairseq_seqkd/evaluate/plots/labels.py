"""Places names at points and line ends so that no two overlap. Needs matplotlib.

All lengths are in pixels of the figure. Axes and limits must be final before.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from fairseq_seqkd.evaluate.plots.placement import place_labels
from fairseq_seqkd.evaluate.plots.style import LABEL_SIZE, escape

_LONGEST = 50  # characters
_APART = 20  # pixels from a point to its label that is joined to it by a line


class Label(NamedTuple):
    """A name to write beside a point.

    Attributes:
        text: the name
        point: (x, y) in data coordinates
        colour: of the point
        is_required: False if it is left out where there is no room
    """

    text: str
    point: tuple
    colour: str
    is_required: bool = True


def _sizes(figure, labels):
    """(width, height) of each label, with a little room around it."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [Text(text=_shown(label), fontsize=LABEL_SIZE, figure=figure) for label in labels]
    boxes = [text.get_window_extent(renderer) for text in texts]
    return [(box.width + 6, box.height + 1) for box in boxes]


def spread(centres, distance, low, high):
    """Move positions apart until neighbours have the distance, each as little as possible.

    Their order is kept. (Isotonic regression, by pooling adjacent violators.)

    Args:
        centres: positions
        distance: between neighbours
        low, high: limits of the result, if there is room between them
    Returns:
        a position for every centre
    """
    order = sorted(range(len(centres)), key=lambda i: centres[i])
    blocks = []  # [mean, size] of neighbours that move as one
    for rank, i in enumerate(order):
        blocks.append([centres[i] - rank * distance, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, size = blocks.pop()
            left_mean, left_size = blocks.pop()
            total = left_size + size
            blocks.append([(left_mean * left_size + mean * size) / total, total])
    means = np.repeat(*zip(*blocks))
    means = np.clip(means, low, max(low, high - (len(centres) - 1) * distance))
    positions = [0.0] * len(centres)
    for rank, i in enumerate(order):
        positions[i] = float(means[rank]) + rank * distance
    return positions


def label_line_ends(axes, labels):
    """Write names in a column to the right of the axes, each as high as its line's end."""
    figure = axes.figure
    sizes = _sizes(figure, labels)
    gap = 0.02 * figure.bbox.width
    figure.subplots_adjust(right=1 - (max(w for w, _ in sizes) + 2 * gap) / figure.bbox.width)
    ends = [axes.transData.transform(label.point) for label in labels]
    height = 1.1 * max(h for _, h in sizes)
    heights = spread([y for _, y in ends], height, height / 2, figure.bbox.height - height / 2)
    for label, end, y in zip(labels, ends, heights):
        _write(axes, label, end, (axes.bbox.x1 + gap, y), "left")


def label_points(axes, labels, marker_size, corners):
    """Write names beside the points of a scatter plot.

    Args:
        axes: of the plot
        labels: a `Label` for every point
        marker_size: diameter of the points' markers, in points
        corners: [(x, y)] of a stepped line that the names should keep clear of
    """
    figure = axes.figure
    points = [axes.transData.transform(label.point) for label in labels]
    corners = axes.transData.transform(corners)
    segments = np.concatenate(
        [np.minimum(corners[:-1], corners[1:]) - 2, np.maximum(corners[:-1], corners[1:]) + 2],
        axis=1,
    )
    positions = place_labels(
        points,
        _sizes(figure, labels),
        marker_size / 2 * figure.dpi / 72 + 1,
        (axes.bbox.x0 + 5, axes.bbox.y0 + 2, figure.bbox.x1 - 5, axes.bbox.y1),
        [label.is_required for label in labels],
        segments,
    )
    for label, point, position in zip(labels, points, positions):
        if position:
            _write(axes, label, point, *position)


def _write(axes, label, anchor, position, side):
    """Write a label, and a line from its point if it stands apart.

    Args:
        anchor: (x, y) of the label's point
        position: (x, y) of the middle of the label's edge that is next to the point
        side: ``left``, ``center`` or ``right``: the part of the label at the position
    """
    distance = np.subtract(position, anchor)
    axes.annotate(
        _shown(label),
        label.point,
        distance * 72 / axes.figure.dpi,
        textcoords="offset points",
        annotation_clip=False,
        horizontalalignment=side,
        verticalalignment="center",
        fontsize=LABEL_SIZE,
        color=_readable(label.colour),
        arrowprops=_leader(label.colour, side) if np.hypot(*distance) > _APART else None,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
    )


def _leader(colour, side):
    """The look of a line from a label to its point."""
    line = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.7}
    edge = {"left": 0, "center": 0.5, "right": 1}[side], 0.5
    return {**line, "relpos": edge, "shrinkA": 1, "shrinkB": 3}


def _shown(label):
    """The text that is drawn; very long names are cut."""
    text = label.text if len(label.text) <= _LONGEST else label.text[: _LONGEST - 1] + "…"
    return escape(text)


def _readable(colour):
    """The colour, darker if it is too light for text on white."""
    red, green, blue = to_rgb(colour)
    luminance = 0.3 * red + 0.59 * green + 0.11 * blue
    return tuple(part * min(1, 0.42 / max(luminance, 1e-6)) for part in (red, green, blue))
