"""Finds room for names beside points, by a search over positions around each point.

All lengths are in pixels. A box is (left, bottom, right, top); boxes are (..., 4).
"""

from typing import NamedTuple

import numpy as np

_SWEEPS = 5
_GAP = 3  # between a marker and its label
_CLEARANCE = 5  # between a marker and other labels
_ASIDE = (0, 12, 36, 80, 170)  # further to the side than beside the marker
_REACH = 24  # thirds of a label's height, above and below its point
# Costs, in pixels of distance.
_OUTSIDE = 1_000_000  # of the bounds
_OVERLAP = 10_000  # with a point or label
_CROSSING = 60  # of a leader with another leader or label
_HIDDEN_POINT = 40  # by a leader
_HIDDEN_LINE = 25  # by a label
_MANY_POINTS = 30
_LEFT_OUT = 150  # from here on
_LEFT_OUT_OF_MANY = 20


class Positions(NamedTuple):
    """Possible positions of one label.

    Attributes:
        starts: (k, 2) middle of the edge that is next to the point
        sides: k times ``left``, ``right`` or ``center``: the part of the label at the start
        boxes: (k, 4)
        costs: (k,) of each by itself
    """

    starts: np.ndarray
    sides: list
    boxes: np.ndarray
    costs: np.ndarray


def place_labels(points, sizes, radius, bounds, required, lines):
    """Place a label beside every point, so that it overlaps no point and no other label.

    Labels that are not required are left out where there is no room. A required label that
    finds none overlaps as little as possible.

    Args:
        points: (n, 2) middles of the points' markers
        sizes: (n, 2) width and height of each label
        radius: of the markers
        bounds: (4,) box around all labels
        required: (n,) booleans
        lines: (m, 4) boxes that labels had better not overlap
    Returns:
        for every label ((x, y), side) as in `Positions`, or None
    """
    points, sizes = np.asarray(points, float), np.asarray(sizes, float)
    middles = np.concatenate([points, points], axis=1)
    markers = middles + radius * np.array([-1, -1, 1, 1])
    positions = [
        _positions(point, size, radius, bounds, np.delete(markers, i, axis=0), lines)
        for i, (point, size) in enumerate(zip(points, sizes))
    ]
    # Points that stand alone come first, then those of a crowd from top to bottom.
    order = sorted(range(len(points)), key=lambda i: (positions[i].costs.min(), -points[i][1]))
    limit = _LEFT_OUT if len(points) <= _MANY_POINTS else _LEFT_OUT_OF_MANY
    placed = {}
    _improve(placed, [i for i in order if required[i]], points, positions, np.inf)
    _improve(placed, [i for i in order if not required[i]], points, positions, limit)
    return [
        (tuple(positions[i].starts[placed[i]]), positions[i].sides[placed[i]])
        if i in placed
        else None
        for i in range(len(points))
    ]


def _improve(placed, labels, points, positions, limit):
    """Give each label its cheapest position beside the others, until none moves.

    Args:
        placed: {label: index of its position}, to be filled
        labels: indices of the labels to place
        points: (n, 2)
        positions: n `Positions`
        limit: cost from which a label is left out
    """
    for _ in range(_SWEEPS):
        before = dict(placed)
        for i in labels:
            placed.pop(i, None)
            costs = positions[i].costs + _conflicts(points, positions, i, placed)
            best = int(costs.argmin())
            if costs[best] < limit:
                placed[i] = best
        if placed == before:
            return


def _positions(point, size, radius, bounds, markers, lines):
    """The `Positions` of a label: above, below, and to both sides in several distances."""
    (x, y), (width, height) = point, size
    beside = radius + _GAP
    clearance = _CLEARANCE * np.array([-1, -1, 1, 1])
    above = beside + height / 2
    candidates = [(x, y + dy, "center", width / 2) for dy in (above, -above)]
    candidates += [
        (x + sign * (beside + aside), y + step * height / 3, side, shift)
        for sign, side, shift in ((1, "left", 0), (-1, "right", width))
        for aside in _ASIDE
        for step in range(-_REACH, _REACH + 1)
    ]
    x, y, sides, shifts = zip(*candidates)
    starts = np.stack([x, y], axis=1)
    corners = starts - np.stack([shifts, np.full(len(starts), height / 2)], axis=1)
    boxes = np.concatenate([corners, corners + size], axis=1)
    costs = np.hypot(*(starts - point).T) - beside
    costs += _OVERLAP * _overlap(boxes[:, None], markers + clearance).sum(1)
    costs += _HIDDEN_LINE * _overlap(boxes[:, None], lines).sum(1)
    costs += _HIDDEN_POINT * _through(point, starts[:, None], markers).sum(1)
    outside = (boxes[:, :2] < bounds[:2]).any(1) | (boxes[:, 2:] > bounds[2:]).any(1)
    return Positions(starts, sides, boxes, costs + _OUTSIDE * outside)


def _conflicts(points, positions, i, placed):
    """(k,) costs of label i's positions beside the labels that are placed."""
    if not placed:
        return np.zeros(len(positions[i].starts))
    starts, boxes = positions[i].starts[:, None], positions[i].boxes[:, None]
    other_points = points[list(placed)]
    other_starts = np.stack([positions[j].starts[at] for j, at in placed.items()])
    other_boxes = np.stack([positions[j].boxes[at] for j, at in placed.items()])
    crossings = (
        _through(points[i], starts, other_boxes).astype(int)
        + _through(other_points, other_starts, boxes)
        + _cross(points[i], starts, other_points, other_starts)
    )
    return (_CROSSING * crossings + _OVERLAP * _overlap(boxes, other_boxes)).sum(1)


# Below, points and boxes broadcast.


def _overlap(boxes, others):
    """Whether boxes overlap."""
    return ((boxes[..., :2] < others[..., 2:]) & (others[..., :2] < boxes[..., 2:])).all(-1)


def _through(points, starts, boxes):
    """Whether the line from a point to a start goes through a box."""
    fractions = np.linspace(0, 1, 16)[:, None, None, None]
    on_line = points + fractions * (starts - points)
    return ((on_line > boxes[..., :2]) & (on_line < boxes[..., 2:])).all(-1).any(0)


def _cross(points, starts, other_points, other_starts):
    """Whether the line from a point to a start crosses another such line."""
    other_line = _side(points, starts, other_points) * _side(points, starts, other_starts)
    line = _side(other_points, other_starts, points) * _side(other_points, other_starts, starts)
    return (other_line < 0) & (line < 0)


def _side(a, b, c):
    """On which side of the line from a to b the point c is: -1, 0 or 1."""
    ab, ac = b - a, c - a
    return np.sign(ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0])
