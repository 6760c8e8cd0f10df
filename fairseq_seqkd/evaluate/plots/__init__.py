"""The plots of a report, as SVG and PNG; they need matplotlib."""

from typing import NamedTuple

TITLES = {
    "speed": "BLEU against speed",
    "size": "BLEU against size",
    "length": "BLEU by source length",
    "training-bleu": "Validation BLEU during training",
    "training-loss": "Validation loss during training",
}


class Plot(NamedTuple):
    """A plot in both formats.

    Attributes:
        svg: text
        png: bytes; 1,200 pixels wide
    """

    svg: str
    png: bytes


def plot_report(report):
    """Plot everything that the report has numbers for.

    Args:
        report: `Report`
    Returns:
        {name: `Plot`}
    Raises:
        ImportError: matplotlib is not installed
    """
    import matplotlib  # noqa: F401  to raise where the modules below were imported before

    from fairseq_seqkd.evaluate.plots.style import as_png, as_svg, report_style

    plots = {}
    for name in plot_names(report):
        with report_style(salt=name):
            figure = draw(report, name)
            plots[name] = Plot(as_svg(figure), as_png(figure))
    return plots


def plot_names(report):
    """The names of the plots that the report has numbers for."""
    metrics = sorted({metric for curves in report.curves.values() for metric in curves})
    return ["speed", "size", "length", *(f"training-{metric}" for metric in metrics)]


def draw(report, name):
    """Draw one plot.

    Args:
        report: `Report`
        name: a key of `TITLES`
    Returns:
        a matplotlib `Figure`
    """
    from fairseq_seqkd.evaluate.plots import lines, scatter

    if name.startswith("training-"):
        return lines.draw_curves(report, name.partition("-")[2])
    functions = {
        "speed": scatter.draw_speed,
        "size": scatter.draw_size,
        "length": lines.draw_lengths,
    }
    return functions[name](report)
