"""Places names at points and line ends so that no two overlap. Needs matplotlib.

All lengths are in pixels of the figure. Axes and limits must be final before.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from fairseq_seqkd.evaluate.plots.style import LABEL_SIZE, escape


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


def text_size(figure, text):
    """(width, height) of a label."""
    canvas = FigureCanvasAgg(figure)
    label = Text(0, 0, escape(text), fontsize=LABEL_SIZE, figure=figure)
    box = label.get_window_extent(canvas.get_renderer())
    return box.width, box.height


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
    sizes = [text_size(figure, label.text) for label in labels]
    gap = 0.02 * figure.bbox.width
    figure.subplots_adjust(right=1 - (max(w for w, _ in sizes) + 2 * gap) / figure.bbox.width)
    ends = [axes.transData.transform(label.point) for label in labels]
    height = 1.1 * max(h for _, h in sizes)
    heights = spread([y for _, y in ends], height, height / 2, figure.bbox.height - height / 2)
    for label, end, y in zip(labels, ends, heights):
        _write(axes, label, end, (axes.bbox.x1 + gap, y), "left")
