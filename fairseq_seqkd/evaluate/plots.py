"""The plots of a report, as SVG; needs matplotlib."""

import io

from fairseq_seqkd.evaluate.table import engine_label

TITLES = {
    "speed": "BLEU against speed",
    "size": "BLEU against size",
    "length": "BLEU by source length",
    "training-bleu": "Validation BLEU during training",
    "training-loss": "Validation loss during training",
}
_MARKERS = "osD^vP*X"


def plot_report(report):
    """Plot everything that the report has numbers for.

    Args:
        report: `Report`
    Returns:
        {name: SVG}
    Raises:
        ImportError: matplotlib is not installed
    """
    import matplotlib

    matplotlib.use("svg")
    figures = {
        "speed": _plot_bleu(report, lambda row: row.sentences_per_second, "sentences/s"),
        "size": _plot_bleu(report, lambda row: row.weight_bytes / 1e6, "MB of weights"),
        "length": _plot_bleu_by_length(report),
    }
    for metric in sorted({name for curves in report.curves.values() for name in curves}):
        figures[f"training-{metric}"] = _plot_curves(report, metric)
    return {name: _svg(name, figure) for name, figure in figures.items()}


def _new_figure(x_label, y_label):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _escape(text):
    """Keep matplotlib from reading a dollar sign as the beginning of a formula."""
    return text.replace("$", r"\$")


def _colours(report):
    from matplotlib import colormaps

    palette = colormaps["tab10"] if len(report.models) <= 10 else colormaps["tab20"]
    return {model.name: palette(i) for i, model in enumerate(report.models)}


def _plot_bleu(report, x_of, x_label):
    """BLEU against a property of the rows: one colour a model, one marker a way of decoding."""
    figure, axes = _new_figure(f"{x_label} (logarithmic)", "BLEU")
    colours = _colours(report)
    ways = list(dict.fromkeys((engine_label(report, r), r.decoding) for r in report.rows))
    markers = dict(zip(ways, _MARKERS * len(ways)))
    for row in report.rows:
        axes.plot(
            *(x_of(row), row.bleu, markers[engine_label(report, row), row.decoding]),
            **{"color": colours[row.model], "markersize": 9, "alpha": 0.85},
        )
    _use_log_scale(axes)
    handles = _legend_handles(colours, markers)
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _use_log_scale(axes):
    from matplotlib.ticker import ScalarFormatter

    axes.set_xscale("log")
    for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        set_formatter(ScalarFormatter())
    axes.tick_params(axis="x", which="minor", labelsize=7)


def _legend_handles(colours, markers):
    from matplotlib.lines import Line2D

    models = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=_escape(name))
        for name, colour in colours.items()
    ]
    ways = [
        Line2D([], [], color="grey", marker=marker, linestyle="", label=", ".join(way))
        for way, marker in markers.items()
    ]
    return models + ways


def _plot_bleu_by_length(report):
    """BLEU of every model by source length; greedy if that was run."""
    figure, axes = _new_figure("source length in tokens", "BLEU")
    groups = [f"{low}-{high}" for low, high in report.length_groups]
    for name, colour in _colours(report).items():
        rows = [row for row in report.rows if row.model == name]
        row = min(rows, key=lambda row: (row.engine != rows[0].engine, row.beam))
        label = _escape(f"{name}, {row.decoding}")
        axes.plot(groups, row.bleu_by_length, "o-", color=colour, label=label)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _plot_curves(report, metric):
    y_label = {"bleu": "validation BLEU", "loss": "validation loss, bits per token"}[metric]
    figure, axes = _new_figure("updates", y_label)
    for name, curves in report.curves.items():
        if metric in curves:
            axes.plot(*zip(*curves[metric]), ".-", label=_escape(name))
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _svg(name, figure):
    from matplotlib import rc_context

    file = io.StringIO()
    # Equal numbers give equal bytes. The salt keeps the element ids of the page's plots apart.
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
