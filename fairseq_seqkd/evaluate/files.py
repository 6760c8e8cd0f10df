"""Writes a report: report.md, report.json, report.csv, report.html, and its pictures."""

import csv
import io
import json
import logging
import os
from dataclasses import asdict, replace

from fairseq_seqkd.evaluate import plots
from fairseq_seqkd.evaluate.page import TITLES, page
from fairseq_seqkd.evaluate.table import markdown
from fairseq_seqkd.io.files import atomic_file

logger = logging.getLogger(__name__)


def write(report, folder):
    """Write everything; each file is there whole or not at all.

    Args:
        report: `Report`
        folder: made if it is not there; older reports in it are replaced
    Returns:
        the names of the files
    """
    try:
        pictures = plots.draw(report)
    except Exception as error:  # the numbers took longer than any picture is worth
        missing = plots.MISSING if isinstance(error, ImportError) else error
        logger.warning("no pictures: %s; the rest of the report is made", missing)
        report = replace(report, notes=[*report.notes, f"There are no pictures: {missing}."])
        pictures = {}
    files = {
        "report.md": as_markdown(report, pictures),
        "report.json": as_json(report),
        "report.csv": as_csv(report),
        "report.html": page(report, pictures),
        **{f"{name}.svg": svg for name, svg in pictures.items()},
    }
    os.makedirs(folder, exist_ok=True)
    for name, content in files.items():
        with atomic_file(os.path.join(folder, name)) as file:
            file.write(content.encode())
    return list(files)


def as_markdown(report, pictures):
    """Tables, pictures and commands."""
    lines = [markdown(report), ""]
    lines += [f"![{TITLES[name]}]({name}.svg)\n" for name in pictures]
    lines += ["All of it:\n", f"```sh\n{report.command}\n```\n", "One by one:\n"]
    lines += [f"```sh\n{row.command}\n```\n" for row in report.rows]
    return "\n".join(lines)


def as_json(report):
    """Everything, unrounded."""
    return json.dumps(asdict(report), indent=2, allow_nan=False) + "\n"


def as_csv(report):
    """A line a row, with what is so of its model."""
    of_model = {model.name: asdict(model) for model in report.models}
    lines = [{**_flat(row), **_without_name(of_model[row.model])} for row in report.rows]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _flat(row):
    cells = asdict(row)
    del cells["seconds"]
    cells["bleu_by_length"] = " ".join(f"{bleu:.2f}" for bleu in row.bleu_by_length)
    difference = cells.pop("difference") or {}
    for name in ("bleu", "low", "high"):
        cells[f"difference_{name}"] = difference.get(name, "")
    speeds = {
        name: getattr(row, name) for name in ("sentences_per_second", "tokens_per_second")
    }
    slowest, fastest = row.range_of_speed
    return {**cells, **speeds, "slowest": slowest, "fastest": fastest}


def _without_name(model):
    return {key: value for key, value in model.items() if key != "name"}
