"""How all pictures of a report look: colours, axes and files. Needs matplotlib."""

import io

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# The first seven are those of Okabe and Ito (2008), which colour-blind people can tell apart,
# without yellow, which is too light for lines.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#544E03", "#1805DB", "#05472A", "#8E82FE", "#7A687F", "#AAA662"),
    *("#BB3F3F", "#AD0AFD", "#014182", "#929591", "#A57E52", "#E377C2"),
)
LINE_STYLES = ("-", "--", "-.", ":")
_COLOURS_PER_LINE_STYLE = 8
_DPI = 120  # 1,200 pixels for 10 inches
FONT_SIZE = 10
LABEL_SIZE = 9
GREY = "#666666"


def report_style(salt):
    """A context in which equal numbers give equal bytes, whatever the user's settings.

    Args:
        salt: keeps the element ids of the pictures of one page apart
    """
    ours = {"svg.hashsalt": salt, "svg.fonttype": "path", "font.size": FONT_SIZE}
    return style.context(["default", ours])


def styles_by_name(names):
    """{name: keyword arguments of `Axes.plot`}: a colour each up to 20, then also line styles."""
    return {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": LINE_STYLES[i // _COLOURS_PER_LINE_STYLE % len(LINE_STYLES)],
        }
        for i, name in enumerate(names)
    }


def new_figure(x_label, y_label, inches=6.0):
    """A figure of 10 inches by ``inches``, with fixed margins, and its axes."""
    figure = Figure(figsize=(10, inches), dpi=_DPI)
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.6 / inches, top=1 - 0.15 / inches)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True, which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def use_log_scale(axes, values):
    """Make the x-axis logarithmic around the values, with few ticks and plain numbers."""
    low, high = min(values), max(values)
    margin = max((high / low) ** 0.08, 1.15)
    low, high = low / margin, high * margin
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(_tick_locator(high / low))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _tick_locator(ratio):
    """At most about ten ticks between two numbers with this quotient."""
    if ratio < 5:
        return MaxNLocator(6)
    return LogLocator(subs=(1, 2, 5) if ratio < 3000 else (1,))


def escape(text):
    """Keep matplotlib from reading a dollar sign as the beginning of a formula."""
    return text.replace("$", r"\$")


def as_svg(figure):
    """The figure as SVG, a string without date."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def as_png(figure):
    """The figure as PNG, 1,200 pixels wide."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()
