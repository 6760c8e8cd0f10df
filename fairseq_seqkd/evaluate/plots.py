"""The pictures of a report, as SVG; needs matplotlib."""

import io

from fairseq_seqkd.evaluate.table import through

_MARKERS = "osD^vP*X"
MISSING = "matplotlib is not installed (pip install matplotlib)"


def draw(report):
    """{name: SVG} of what there is to see.

    Args:
        report: `Report`
    Raises:
        ImportError: there is no matplotlib
    """
    import matplotlib

    matplotlib.use("svg")
    pictures = {
        "speed": _scatter(report, lambda row: row.sentences_per_second, "sentences a second"),
        "size": _scatter(report, lambda row: row.bytes / 1e6, "MB of weights"),
        "length": _by_length(report),
    }
    for measure in sorted({name for one in report.curves.values() for name in one}):
        pictures[f"training-{measure}"] = _curves(report, measure)
    return {name: _svg(name, figure) for name, figure in pictures.items()}


def _figure(x, y):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain(text):
    """A dollar sign is no formula."""
    return text.replace("$", r"\$")


def _colours(report):
    from matplotlib import colormaps

    palette = colormaps["tab10"] if len(report.models) <= 10 else colormaps["tab20"]
    return {model.name: palette(i) for i, model in enumerate(report.models)}


def _scatter(report, x_of, x_name):
    """BLEU against something: colours tell the models, marks how they decode."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import ScalarFormatter

    figure, axes = _figure(f"{x_name} (logarithmic)", "BLEU")
    colours = _colours(report)
    ways = list(dict.fromkeys((through(report, r), r.decoding) for r in report.rows))
    marks = dict(zip(ways, _MARKERS * len(ways)))
    for row in report.rows:
        axes.plot(
            *(x_of(row), row.bleu, marks[through(report, row), row.decoding]),
            **{"color": colours[row.model], "markersize": 9, "alpha": 0.85},
        )
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(ScalarFormatter())
    axes.tick_params(axis="x", which="minor", labelsize=7)
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=_plain(name))
        for name, colour in colours.items()
    ] + [
        Line2D([], [], color="grey", marker=mark, linestyle="", label=", ".join(way))
        for way, mark in marks.items()
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _by_length(report):
    """Every model's BLEU by the length of the source, greedy if it was run."""
    figure, axes = _figure("tokens of the source", "BLEU")
    names = [f"{low}-{high}" for low, high in report.length_groups]
    for name, colour in _colours(report).items():
        rows = [row for row in report.rows if row.model == name]
        row = min(rows, key=lambda one: (one.engine != rows[0].engine, one.beam))
        label = _plain(f"{name}, {row.decoding}")
        axes.plot(names, row.bleu_by_length, "o-", color=colour, label=label)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _curves(report, measure):
    figure, axes = _figure("updates", {"bleu": "validation BLEU"}.get(measure, "bits a token"))
    for name, curves in report.curves.items():
        if measure in curves:
            axes.plot(*zip(*curves[measure]), ".-", label=_plain(name))
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _svg(name, figure):
    from matplotlib import rc_context

    file = io.StringIO()
    # Equal bytes for equal numbers; names that are not those of another picture of the page.
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
