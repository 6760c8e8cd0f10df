"""The plots: names that can be read, colours, the Pareto front, and equal bytes."""

import itertools
import random

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from fairseq_seqkd.evaluate.plots import draw, plot_names, plot_report
from fairseq_seqkd.evaluate.plots.labels import spread
from fairseq_seqkd.evaluate.plots.lines import without_common_beginnings
from fairseq_seqkd.evaluate.plots.placement import place_labels
from fairseq_seqkd.evaluate.plots.scatter import pareto_front
from fairseq_seqkd.evaluate.plots.style import GREY, line_styles, report_style
from fairseq_seqkd.evaluate.report import ModelSummary, Report, Row

NAMES = ("teacher", "no distillation", "Seq-KD", "Word-KD", "Seq-KD + Seq-Inter + Word-KD")
ENGINES = ("fairseq", "ctranslate2:float32", "ctranslate2:int8")


def make_report(models, engines=ENGINES, beams=(1, 5), devices=("cpu",)):
    """A report on a teacher and students that are alike, as after a real comparison."""
    rng = random.Random(models)
    names = [*NAMES, *(f"Seq-KD, size {i}" for i in range(models))][:models]
    report = Report("test", 1000, [], [], length_groups=[(1, 9), (10, 20), (21, 99)])
    for name in names:
        megabytes, bleu = (17, 39) if name == "teacher" else (3.3, rng.uniform(33, 36))
        report.models.append(ModelSummary(name, "x.pt", "data", 1, 1, 1))
        for engine, beam, device in itertools.product(engines, beams, devices):
            speed = 2000 / megabytes * (1 + engines.index(engine)) * (3 if beam == 1 else 1)
            speed *= rng.uniform(0.95, 1.05) * (10 if device == "cuda" else 1)
            weights = int(megabytes * 1e6 * (0.4 if "int8" in engine else 1))
            row = Row(name, engine, device, 1, beam, weights, "")
            row.bleu, row.sentences, row.seconds = bleu + beam / 5, 1000, [[1000 / speed]]
            row.bleu_by_length = [bleu + rng.uniform(-1, 1) for _ in report.length_groups]
            report.rows.append(row)
        if name != "teacher":
            curve = [(100 * i, bleu - 30 / i**2 + rng.uniform(0, 1)) for i in range(1, 11)]
            report.curves[name] = {"bleu": curve, "loss": [(u, 40 - v) for u, v in curve]}
    return report


def draw_styled(report, name):
    """The figure as it is saved as PNG, with the renderer that drew it."""
    with report_style(name):
        figure = draw(report, name)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return figure, canvas.get_renderer()


def shown_texts(figure):
    """All texts of a figure, but the labels of ticks beyond the axes."""
    (axes,) = figure.axes
    texts = [*axes.texts, axes.xaxis.label, axes.yaxis.label]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        texts += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
    return [text for text in texts if text.get_text()]


@pytest.mark.parametrize("name", ["speed", "size", "length", "training-bleu", "training-loss"])
@pytest.mark.parametrize("models", [2, 5, 14])
@pytest.mark.parametrize("engines", [1, 3])
def test_no_two_texts_overlap(models, engines, name):
    report = make_report(models, ENGINES[:engines])
    figure, renderer = draw_styled(report, name)
    # An annotation's own extent has its line, too.
    boxes = [(t.get_text(), Text.get_window_extent(t, renderer)) for t in shown_texts(figure)]
    overlaps = [
        (text, other_text)
        for (text, box), (other_text, other) in itertools.combinations(boxes, 2)
        if Bbox.intersection(box, other) is not None
    ]
    assert overlaps == []
    assert [text for text, box in boxes if not figure.bbox.containsx(box.x1)] == []
    assert [text for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.y1 > 720] == []
    expected = report.curves if name.startswith("training") else [m.name for m in report.models]
    assert set(expected) <= {text for text, _ in boxes}


@pytest.mark.parametrize("bleu", [0.0, 0.01, 12.345])
def test_equal_scores(bleu):
    """As of models that are not trained: long labels of ticks."""
    report = make_report(4, ENGINES[:1])
    for row in report.rows:
        row.bleu, row.bleu_by_length = bleu, [bleu] * 3
    for curves in report.curves.values():
        curves["bleu"] = [(update, bleu) for update, _ in curves["bleu"]]
    for name in ("speed", "size", "length", "training-bleu"):
        figure, renderer = draw_styled(report, name)
        boxes = [Text.get_window_extent(text, renderer) for text in shown_texts(figure)]
        assert all(Bbox.intersection(a, b) is None for a, b in itertools.combinations(boxes, 2))
        assert min(box.x0 for box in boxes) >= 0


def test_texts_of_many_ways_of_decoding_do_not_overlap():
    report = make_report(3, beams=(1, 5, 10), devices=("cpu", "cuda"))
    figure, renderer = draw_styled(report, "speed")
    boxes = [Text.get_window_extent(text, renderer) for text in shown_texts(figure)]
    assert all(Bbox.intersection(a, b) is None for a, b in itertools.combinations(boxes, 2))
    assert len(figure.legends[0].get_texts()) == 3 * 3 * 2 + 1


@pytest.mark.parametrize("models", [2, 10, 11, 20])
def test_no_colour_is_used_twice(models):
    report = make_report(models, ENGINES[:1], (1,))
    assert len({style["color"] for style in line_styles(report).values()}) == models
    figure, _ = draw_styled(report, "length")
    assert len({line.get_color() for line in figure.axes[0].lines}) == models


def test_more_models_than_colours_differ_in_line_style():
    styles = line_styles(make_report(45, ENGINES[:1], (1,))).values()
    assert len({tuple(style.values()) for style in styles}) == 45


def test_a_model_has_the_same_colour_in_all_plots():
    report = make_report(5, ENGINES[:1], (1,))
    report.curves = dict(reversed(report.curves.items()))
    colours = []
    for name in ("speed", "length", "training-bleu"):
        figure, _ = draw_styled(report, name)
        texts = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
        colours.append(texts["Word-KD"])
    assert colours[0] == colours[1] == colours[2]


POINTS = [(1, 30.0), (2, 30.0), (2, 28.0), (3, 25.0), (4, 27.0), (4, 27.0), (5, 20.0)]


@pytest.mark.parametrize(
    "larger_is_better, front",
    [
        (True, [(2, 30.0), (4, 27.0), (5, 20.0)]),
        (False, [(1, 30.0)]),
    ],
)
def test_the_pareto_front(larger_is_better, front):
    assert pareto_front(POINTS, larger_is_better) == front


def test_the_pareto_front_of_small_models():
    points = [(17.0, 39.6), (3.3, 38.4), (3.3, 37.8), (3.9, 38.4), (1.5, 38.3), (5.3, 39.7)]
    assert pareto_front(points, False) == [(1.5, 38.3), (3.3, 38.4), (5.3, 39.7)]


@pytest.mark.parametrize(
    "name, steps",
    [
        ("speed", [(10, 40), (10, 36), (100, 36)]),
        ("size", [(1, 36), (4, 36), (4, 40)]),
    ],
)
def test_the_front_is_drawn_as_steps(name, steps):
    """The better model is slow and large."""
    rows = []
    for model, speed, megabytes, bleu in (("a", 10, 4, 40), ("b", 100, 1, 36), ("c", 5, 9, 35)):
        row = Row(model, "fairseq", "cpu", 1, 1, megabytes * 10**6, "", bleu=bleu)
        row.sentences, row.seconds = speed, [[1.0]]
        rows.append(row)
    models = [ModelSummary(name, "x.pt", "data", 1, 1, 1) for name in "abc"]
    figure, _ = draw_styled(Report("test", 1, models, rows), name)
    (axes,) = figure.axes
    (line,) = [line for line in axes.lines if line.get_color() == GREY]
    corners = [tuple(corner) for corner in line.get_xydata()]
    begin, end = (
        [(axes.get_xlim()[0], 40), (100, axes.get_ylim()[0])]
        if name == "speed"
        else [(1, axes.get_ylim()[0]), (axes.get_xlim()[1], 40)]
    )
    assert list(dict.fromkeys(corners)) == [begin, *steps, end]


@pytest.mark.parametrize(
    "values, labels",
    [
        ([106, 3701], ["100", "200", "500", "1,000", "2,000", "5,000"]),
        ([0.4, 17], ["0.5", "1", "2", "5", "10", "20"]),
        ([3.31, 16.99], ["3", "5", "7", "10", "15", "20"]),
        ([3.31], ["3.2", "3.3", "3.4", "3.5", "3.6"]),
        ([2, 5e6], ["1", "10", "100", "1,000", "10,000", "100,000", "1,000,000", "10,000,000"]),
    ],
)
def test_ticks_of_a_logarithmic_axis(values, labels):
    report = make_report(2, ENGINES[:1], (1,))
    for row, value in itertools.zip_longest(report.rows, values, fillvalue=values[0]):
        row.weight_bytes = value * 1e6
    figure, _ = draw_styled(report, "size")
    axis = figure.axes[0].xaxis
    low, high = axis.get_view_interval()
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    assert [tick.label1.get_text() for tick in ticks] == labels
    assert not axis.get_minor_ticks()


@pytest.mark.parametrize(
    "centres, expected",
    [
        ([5.0], [5.0]),
        ([1.0, 9.0], [1.0, 9.0]),
        ([5.0, 5.0, 5.0], [3.0, 5.0, 7.0]),
        ([6.0, 5.0], [6.5, 4.5]),
        ([5.0, 6.0, 8.0], [4.33, 6.33, 8.33]),
        ([0.0, 0.0], [0.0, 2.0]),  # at the lower limit
        ([10.0, 10.0], [8.0, 10.0]),  # at the upper one
    ],
)
def test_positions_are_spread(centres, expected):
    assert spread(centres, 2, 0, 10) == pytest.approx(expected, abs=0.01)


def test_labels_without_room_are_left_out_if_they_may():
    points, sizes = [(50, 50), (60, 50), (70, 50)], [(90, 10)] * 3
    bounds, no_lines = (0, 40, 170, 60), np.zeros((0, 4))
    placed = place_labels(points, sizes, 4, bounds, [False, False, True], no_lines)
    assert placed == [None, None, ((77, 50), "left")]
    placed = place_labels(points, sizes, 4, bounds, [False, True, True], no_lines)
    assert placed[0] is None and placed[1] and placed[2]  # these two overlap


def test_a_curve_begins_where_it_leaves_an_earlier_one():
    first = [(1, 3.0), (2, 4.0), (3, 5.0)]
    curves = {
        "first": first,
        "second": [(1, 3.0), (2, 4.0), (3, 6.0), (4, 7.0)],
        "third": [[1, 3.0], [2, 4.0], [3, 6.0], [4, 8.0]],  # as read from JSON
        "other": [(1, 2.0), (2, 4.0)],
        "equal": first,
    }
    assert without_common_beginnings(curves) == {
        "first": first,
        "second": [(2, 4.0), (3, 6.0), (4, 7.0)],
        "third": [(3, 6.0), (4, 8.0)],
        "other": curves["other"],
        "equal": [(3, 5.0)],
    }


def test_equal_numbers_give_equal_bytes():
    plots = plot_report(make_report(5))
    with rc_context({"font.size": 20, "axes.grid": True, "svg.hashsalt": "mine"}):
        again = plot_report(make_report(5))
    assert plots == again
    assert list(plots) == plot_names(make_report(5)) and len(plots) == 5
    for plot in plots.values():
        assert plot.png.startswith(b"\x89PNG") and b"Software" not in plot.png
        assert int.from_bytes(plot.png[16:20], "big") == 1200  # pixels wide
        assert "<dc:date>" not in plot.svg


def test_very_long_names_are_cut():
    report = make_report(2, ENGINES[:1], (1,))
    report.models[1].name = report.rows[1].model = "a" * 300
    for name in ("speed", "length"):
        figure, _ = draw_styled(report, name)
        assert "a" * 49 + "…" in {text.get_text() for text in figure.axes[0].texts}
