"""A report as one HTML page that needs nothing but itself."""

import html
import re

from fairseq_seqkd.evaluate.table import explanation, tables

TITLES = {
    "speed": "BLEU against speed",
    "size": "BLEU against size",
    "length": "BLEU by the length of the source",
    "training-bleu": "BLEU on the validation set, while training",
    "training-loss": "Loss on the validation set, while training",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto;
       padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .45em; font-size: .9em;
         border-bottom: 1px solid #ddd; white-space: nowrap; }
.wide { overflow-x: auto; }
figure { margin: 2em 0; }
figure svg { width: 100%; height: auto; }
pre { background: #f6f6f6; padding: .6em; white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def page(report, pictures):
    """The page.

    Args:
        report: `Report`
        pictures: {name: SVG}
    """
    title = f"{', '.join(model.name for model in report.models)} on {report.split}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(f'<div class="wide">{table}</div>' for table in tables(report, "html")),
        f"<p>{html.escape(explanation(report))}</p>",
        *(f"<p>{html.escape(note)}</p>" for note in report.notes),
        *(_figure(name, svg) for name, svg in pictures.items()),
        "<h2>How to get these numbers</h2>",
        f"<p>All of them:</p>{_code(report.command)}",
        *(
            f"<p>{html.escape(f'{row.model}, {row.engine}, {row.device}, {row.decoding}')}:"
            f"</p>{_code(row.command)}"
            for row in report.rows
        ),
        "<h2>With</h2>",
        _code("\n".join(f"{name} {version}" for name, version in report.versions.items())),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _figure(name, svg):
    drawing = re.sub(r"^.*?(?=<svg)", "", svg, count=1, flags=re.DOTALL)
    return f'<h2>{TITLES[name]}</h2>\n<figure id="{name}">{drawing}</figure>'


def _code(text):
    return f"<pre>{html.escape(text)}</pre>"
