"""Renders a report as one self-contained HTML page, by the template ``report.html.j2``.

Needs jinja2.
"""

import os
import re

from fairseq_seqkd.evaluate.plots import TITLES
from fairseq_seqkd.evaluate.table import alignment, explain_columns, tables

_FOLDER = os.path.dirname(__file__)


def render_page(report, plots):
    """Render the page.

    Args:
        report: `Report`
        plots: {name: `Plot`}
    Returns:
        HTML
    Raises:
        ImportError: jinja2 is not installed
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,  # names and commands are the user's
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2").render(
        title=f"{', '.join(model.name for model in report.models)} on {report.split}",
        report=report,
        tables=tables(report),
        alignment=alignment,
        compared=_compared_rows(report),
        explanation=explain_columns(report),
        plots=[
            {"name": name, "title": TITLES[name], "svg": _without_xml_head(plot.svg)}
            for name, plot in plots.items()
        ],
    )


def _compared_rows(report):
    """How the two rows that are shown side by side are called."""
    names = report.side_by_side.rows if report.side_by_side else []
    return [f"{row.model}, {row.decoding}" for row in map(report.row, names)]


def _without_xml_head(svg):
    """An SVG file's content as it may stand in HTML."""
    return re.sub(r"^.*?(?=<svg)", "", svg, count=1, flags=re.DOTALL)
