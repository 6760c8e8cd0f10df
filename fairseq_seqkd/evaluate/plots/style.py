"""The look of the plots: colours, axes and files. Needs matplotlib."""

import io

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import blended_transform_factory

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
ROUND_STEPS = (1, 2, 5, 10)  # between ticks


def report_style(salt):
    """A context for drawing and saving, in which equal numbers give equal bytes.

    The user's own settings of matplotlib do not count.

    Args:
        salt: keeps the element ids of the plots of one page apart
    """
    ours = {"svg.hashsalt": salt, "svg.fonttype": "path", "font.size": FONT_SIZE}
    return style.context(["default", ours])


def line_styles(report):
    """{name: keyword arguments of `Axes.plot`} for the models and the other training curves.

    Each of up to 20 has a colour of its own; further ones differ by line style.
    """
    names = dict.fromkeys([*(model.name for model in report.models), *report.curves])
    return {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": LINE_STYLES[i // _COLOURS_PER_LINE_STYLE % len(LINE_STYLES)],
        }
        for i, name in enumerate(names)
    }


def new_figure(x_label, y_label, key_lines=0):
    """A figure, 10 inches wide, with fixed margins, and its axes.

    Args:
        x_label, y_label: of the axes
        key_lines: lines of text for which there is room above the axes
    """
    inches = 6 + 0.2 * max(0, key_lines - 2)
    figure = Figure(figsize=(10, inches), dpi=_DPI)
    axes = figure.add_subplot()
    top = 1 - (0.15 + 0.2 * key_lines) / inches
    figure.subplots_adjust(left=0.08, right=0.97, bottom=0.6 / inches, top=top)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    left_of_ticks = blended_transform_factory(figure.transFigure, axes.transAxes)
    axes.yaxis.set_label_coords(0.02, 0.5, transform=left_of_ticks)
    axes.yaxis.set_major_locator(MaxNLocator(9, steps=ROUND_STEPS))
    axes.grid(True, which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def use_log_scale(axes, values):
    """Make the x-axis logarithmic around the values, with few ticks and plain numbers."""
    low, high = min(values), max(values)
    margin = max((high / low) ** 0.08, 1.05)
    low, high = low / margin, high * margin**2.2  # with room for names to the right
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(_tick_locator(high / low))
    axes.xaxis.set_major_formatter(plain_number)
    axes.xaxis.set_minor_locator(NullLocator())


def fix_limits(axes):
    """Compute the limits of the axes now, and keep them."""
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())


def _tick_locator(ratio):
    """About four to ten ticks between two numbers with this quotient."""
    if ratio < 4:
        return MaxNLocator(6)
    if ratio < 30:
        return LogLocator(subs=(1, 1.5, 2, 3, 5, 7))
    return LogLocator(subs=(1, 2, 5) if ratio < 3000 else (1,))


def plain_number(value, _=None):
    """A tick's label, such as 0.5 or 2,500."""
    return f"{value:,.10g}"


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
