"""Writes a report to disk: report.md, report.json, report.csv, report.html, plots, outputs."""

import csv
import io
import json
import logging
import os
from dataclasses import asdict, replace

from fairseq_seqkd.evaluate.page import render_page
from fairseq_seqkd.evaluate.plots import TITLES, plot_report
from fairseq_seqkd.evaluate.table import render_markdown
from fairseq_seqkd.io.files import atomic_file

logger = logging.getLogger(__name__)


def write_report(report, folder, texts=None):
    """Write all files of a report, each of them atomically.

    Without matplotlib there are no plots, without jinja2 no page: the report says so.

    Args:
        report: `Report`
        folder: created if it does not exist; an older report in it is replaced
        texts: {path in the folder: content} of more files, see `text_files`
    Returns:
        the names of the files and folders in it
    """
    report = replace(report, notes=list(report.notes))
    plots = _make_optional(report, "plots", "matplotlib", plot_report) or {}
    page = _make_optional(report, "HTML page", "jinja2", render_page, plots)
    files = {
        "report.md": as_markdown(report, plots),
        "report.json": as_json(report),
        "report.csv": as_csv(report),
        **({"report.html": page} if page else {}),
        **{f"{name}.svg": plot.svg for name, plot in plots.items()},
        **{f"{name}.png": plot.png for name, plot in plots.items()},
    }
    for name, content in {**(texts or {}), **files}.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with atomic_file(path) as file:
            file.write(content if isinstance(content, bytes) else content.encode())
    return list(dict.fromkeys(name.split("/")[0] for name in (*files, *(texts or {}))))


def _make_optional(report, part, package, make, *arguments):
    """``make(report, *arguments)``, or None and a note in the report if that fails.

    Args:
        part: the name of what is made
        package: the package that ``make`` imports
    """
    try:
        return make(report, *arguments)
    except Exception as error:  # never lose the measurements over their presentation
        missing = f"{package} is not installed (pip install {package})"
        reason = missing if isinstance(error, ImportError) else error
        logger.warning("no %s: %s; the rest of the report is written", part, reason)
        report.notes.append(f"The report has no {part}: {reason}.")
        return None


def as_markdown(report, plots):
    """Tables, plots and commands.

    Args:
        report: `Report`
        plots: the names of the plots
    """
    lines = [render_markdown(report), ""]
    lines += [f"![{TITLES[name]}]({name}.svg)\n" for name in plots]
    lines += ["The whole report:\n", f"```sh\n{report.command}\n```\n", "Single rows:\n"]
    lines += [f"```sh\n{row.command}\n```\n" for row in report.rows]
    return "\n".join(lines)


def as_json(report):
    """All fields of the `Report`, unrounded."""
    return json.dumps(asdict(report), indent=2, allow_nan=False) + "\n"


def as_csv(report):
    """One line a row, with the fields of its model."""
    summaries = {model.name: asdict(model) for model in report.models}
    for summary in summaries.values():
        del summary["name"]
    lines = [{**_csv_cells(row), **summaries[row.model]} for row in report.rows]
    columns = dict.fromkeys(column for line in lines for column in line)
    file = io.StringIO()
    table = csv.DictWriter(file, list(columns), lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return file.getvalue()


def _csv_cells(row):
    """A row's fields, those that are lists or dictionaries flattened."""
    cells = asdict(row)
    del cells["seconds"]
    if len(row.splits) > 1:
        cells.update(cells["splits"])
    del cells["splits"], cells["seeds"]
    cells["lenpen"] = [seed.lenpen for seed in row.seeds]
    for name in ("sentences_per_second", "tokens_per_second"):
        cells[name] = getattr(row, name)
    slowest, fastest = row.speed_range
    speeds = {"slowest_sentences_per_second": slowest, "fastest_sentences_per_second": fastest}
    return dict(_flat({**cells, **speeds}))


def _flat(cells):
    """Yield (column, value); what is in dictionaries and lists becomes columns and text."""
    for name, value in cells.items():
        if isinstance(value, dict):
            yield from ((f"{name}_{inner}", one) for inner, one in _flat(value))
        elif isinstance(value, list):
            yield name, " ".join(map(str, value))
        elif (name, value) != ("gain", None):  # the baseline's: its columns stay empty
            yield name, value
