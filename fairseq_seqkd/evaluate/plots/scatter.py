"""BLEU against a property of the rows, with the Pareto front. Needs matplotlib."""

from matplotlib.lines import Line2D

from fairseq_seqkd.evaluate.plots.labels import Label, label_points
from fairseq_seqkd.evaluate.plots.style import (
    GREY,
    LABEL_SIZE,
    escape,
    fix_limits,
    line_styles,
    new_figure,
    use_log_scale,
)
from fairseq_seqkd.evaluate.table import engine_label

_SHAPES = "osD^vP*Xhp<>"
_HALF_FILLED = ("bottom", "left", "top", "right")
_MARKER_SIZE = 8
_KEY_STYLE = {
    **{"loc": "upper center", "frameon": False, "fontsize": LABEL_SIZE},
    **{"borderaxespad": 0.3, "columnspacing": 1.5, "handletextpad": 0.5},
}


def draw_speed(report):
    """BLEU against speed, for every row."""
    return _draw_rows(
        report,
        report.rows,
        [row.sentences_per_second for row in report.rows],
        ("sentences per second (log scale)", "BLEU"),
        "faster",
    )


def draw_size(report):
    """BLEU against size, for every model and engine, decoding like the baseline if it can."""
    rows = [
        row
        for row in report.rows
        if row.device == report.baseline.device
        and (row.beam == report.baseline.beam or row.iterations is not None)
    ]
    return _draw_rows(
        report,
        rows,
        [row.weight_bytes / 1e6 for row in rows],
        ("weights in MB (log scale)", f"BLEU, {report.baseline.decoding}"),
        "smaller",
    )


def pareto_front(points, larger_is_better):
    """The points that no other point beats, which is to be as good in both and better in one.

    Args:
        points: [(x, y)]; a larger y is better
        larger_is_better: whether a larger x is better, too
    Returns:
        the points, by increasing x
    """
    sign = 1 if larger_is_better else -1

    def is_beaten(point):
        x, y = point
        return any(
            sign * other_x >= sign * x and other_y >= y and (other_x, other_y) != (x, y)
            for other_x, other_y in points
        )

    return sorted({point for point in points if not is_beaten(point)})


def _draw_rows(report, rows, values, axis_labels, better):
    """BLEU against the values: one colour a model, one shape an engine, one filling a beam.

    Args:
        report: `Report`
        rows: the rows to draw
        values: the x-coordinate of each row
        axis_labels: of the x-axis and the y-axis
        better: ``faster`` or ``smaller``, what a row on the front is
    """
    markers = _markers(report, rows)
    columns, lines = _key_shape(markers)
    figure, axes = new_figure(*axis_labels, key_lines=lines)
    points = list(zip(values, (row.bleu for row in rows)))
    front = pareto_front(points, larger_is_better=better == "faster")
    colours = {name: look["color"] for name, look in line_styles(report).items()}
    use_log_scale(axes, values)
    axes.margins(y=0.1)
    for row, point in zip(rows, points):
        axes.plot(*point, **_marker(markers[_way(report, row)], colours[row.model]))
    fix_limits(axes)
    corners = _front_corners(axes, front, better == "faster")
    axes.plot(*zip(*corners), color=GREY, linewidth=1, zorder=1)
    handles = _key(markers, f"Pareto front: no other point is both {better} and better")
    figure.legend(handles=handles, ncols=columns, **_KEY_STYLE)
    label_points(axes, _labels(rows, points, colours, front), _MARKER_SIZE, corners)
    return figure


def _way(report, row):
    return engine_label(report, row), row.decoding


def _kind(report, row):
    """The engine, and whether it decodes from left to right."""
    return engine_label(report, row), row.iterations is None


def _markers(report, rows):
    """{(engine, decoding): (shape, filling)}, the beams of an engine side by side."""
    engines = list(dict.fromkeys(_kind(report, row) for row in rows))
    beams = sorted({row.beam for row in rows}, reverse=True)
    # The largest beam is filled, and the smallest hollow.
    fillings = {beam: _HALF_FILLED[i % 4] for i, beam in enumerate(beams)}
    fillings.update({beams[-1]: "none", beams[0]: "full"})
    ordered = sorted(rows, key=lambda r: (engines.index(_kind(report, r)), -r.beam))
    return {
        _way(report, row): (
            _SHAPES[engines.index(_kind(report, row)) % len(_SHAPES)],
            fillings[row.beam],
        )
        for row in ordered
    }


def _marker(marker, colour):
    """Keyword arguments of `Axes.plot` for one point."""
    shape, filling = marker
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.7}  # where points overlap
    if filling != "full":
        edge = {"markeredgewidth": 1.5}
    look = {"marker": shape, "fillstyle": filling, "markersize": _MARKER_SIZE, **edge}
    return {"color": colour, "linestyle": "", **look}


def _labels(rows, points, colours, front):
    """A `Label` for every row; required on the front, and at the best point of other models."""
    best = {}
    for row, point in sorted(zip(rows, points), key=lambda pair: pair[1][1]):
        best[row.model] = point
    labels = []
    for row, point in zip(rows, points):
        is_required = point in front or best[row.model] == point
        labels.append(Label(row.model, point, colours[row.model], is_required))
    return labels


def _front_corners(axes, front, larger_is_better):
    """The corners of a stepped line through the front, on to the borders of the axes."""
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    corners = [(axes.get_xlim()[0], front[0][1]) if larger_is_better else (front[0][0], bottom)]
    for x, y in front:
        previous_x, previous_y = corners[-1]
        corners.append((previous_x, y) if larger_is_better else (x, previous_y))
        corners.append((x, y))
    return [*corners, (front[-1][0], bottom) if larger_is_better else (right, front[-1][1])]


def _key_shape(markers):
    """Columns and lines of the key: a column an engine, and one for the front, if they fit."""
    engines = len({engine for engine, _ in markers})
    columns = engines + 1 if engines <= 3 else 3
    return columns, -(-(len(markers) + 1) // columns)


def _key(markers, front):
    """The entries of the key: every marker, and the line of the front."""
    handles = [
        Line2D([], [], label=escape(", ".join(way)), **_marker(marker, GREY))
        for way, marker in markers.items()
    ]
    return [*handles, Line2D([], [], color=GREY, linewidth=1, label=front)]
