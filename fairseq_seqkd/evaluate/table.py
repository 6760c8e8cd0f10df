"""A report as tables: how every model decodes, and what else is so of it."""

from tabulate import tabulate

_DEVICES = {"cpu": "CPU", "cuda": "GPU"}


def tables(report, tablefmt="github"):
    """The two tables, in a format of tabulate's.

    Args:
        report: `Report`
        tablefmt: such as ``github`` or ``html``
    """
    return [
        tabulate(
            [[_cell(cell, tablefmt) for cell in row.values()] for row in rows],
            list(rows[0]),
            tablefmt=tablefmt,
            colalign=[_alignment(name) for name in rows[0]],
            disable_numparse=True,
        )
        for rows in (decoding(report), models(report))
    ]


def _cell(text, tablefmt):
    """tabulate escapes HTML's marks, and not Markdown's."""
    return text.replace("|", r"\|") if tablefmt == "github" else text


def markdown(report):
    """Tables, what they say, and notes."""
    notes = [f"- {note}" for note in report.notes]
    return "\n".join([*_spaced(tables(report)), explanation(report), *notes])


def _spaced(parts):
    return [line for part in parts for line in (part, "")]


def _alignment(name):
    return "left" if name in ("model", "through", "decoding") else "right"


def decoding(report):
    """[{column: cell}], one a row of the report."""
    return [_decoding(report, row) for row in report.rows]


def _decoding(report, row):
    first = report.first
    slowest, fastest = row.range_of_speed
    faster = row.sentences_per_second / first.sentences_per_second
    return {
        "model": row.model,
        "through": through(report, row),
        "decoding": row.decoding,
        "BLEU": f"{row.bleu:.2f}",
        "more [95 %]": _interval(row.difference),
        "chrF": f"{row.chrf:.2f}",
        "length": f"{row.length_ratio:.3f}",
        "MB": f"{row.bytes / 1e6:.2f}",
        "sentences/s": f"{_digits(row.sentences_per_second)}",
        "range": f"{_digits(slowest)}-{_digits(fastest)}",
        "tokens/s": f"{_digits(row.tokens_per_second)}",
        "times faster": f"{faster:.1f}",
    }


def through(report, row):
    """What a row was decoded by, with the device where there are several."""
    several = len({one.device for one in report.rows}) > 1
    engine = row.engine.replace(":", " ")
    return f"{engine}, {_DEVICES[row.device]}" if several else engine


def _interval(difference):
    if difference is None:
        return ""
    return "{bleu:+.2f} [{low:+.2f}, {high:+.2f}]".format(**difference)


def _digits(number):
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def models(report):
    """[{column: cell}], one a model."""
    first = report.models[0]
    return [
        {
            "model": model.name,
            "parameters": f"{model.parameters:,}",
            "not zero": f"{model.nonzero:,}",
            "times fewer": f"{first.nonzero / model.nonzero:.1f}",
            "checkpoint, MB": f"{model.file_bytes / 1e6:.2f}",
            "mode mass": _percent(model.mode_mass),
            "greedy = beam": _percent(model.greedy_is_beam),
        }
        for model in report.models
    ]


def _percent(share):
    return "" if share is None else f"{100 * share:.1f} %"


def _count(number, what):
    return f"{number} {what}{'s' * (number != 1)}"


def explanation(report):
    """What the columns are."""
    first = report.first
    beam = max(row.beam for row in report.rows)
    return (
        f"On all {report.sentences} lines of {report.split}; more, times faster and times "
        f"fewer (of those that are not zero): than {first.model} with {first.decoding} through "
        f"{through(report, first)}, BLEU with its 95 % interval by paired bootstrap. "
        f"BLEU {report.signatures['BLEU']}, chrF {report.signatures['chrF']}. Speed: the "
        f"median of {_count(len(first.seconds[0]), 'round')} in turns, piece by piece, "
        f"{_count(first.threads, 'thread')}. MB: the weights, and CTranslate2's vocabulary. "
        f"Mode mass: the mean probability that a model gives to its own beam-{beam} output; "
        f"greedy = beam: the share of sentences for which greedy decoding finds it too."
    )
