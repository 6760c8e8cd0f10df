"""The tables of a report: how every model decodes, and how large it is."""

from tabulate import tabulate

_DEVICES = {"cpu": "CPU", "cuda": "GPU"}
_LEFT_ALIGNED = ("model", "engine", "decoding")


def render_markdown(report):
    """The tables, an explanation of their columns, and the notes, as Markdown."""
    lines = [
        line
        for rows in (decoding_rows(report), model_rows(report))
        for line in (_markdown_table(rows), "")
    ]
    return "\n".join([*lines, explain_columns(report), *(f"- {note}" for note in report.notes)])


def _markdown_table(rows):
    cells = [[_escape(cell) for cell in row.values()] for row in rows]
    columns = [_escape(column) for column in rows[0]]
    align = [alignment(column) for column in rows[0]]
    return tabulate(cells, columns, tablefmt="github", colalign=align, disable_numparse=True)


def _escape(text):
    """tabulate does not escape Markdown's marks."""
    return text.replace("|", r"\|")


def alignment(column):
    """``left`` for a column of words, ``right`` for one of numbers."""
    return "left" if column in _LEFT_ALIGNED else "right"


def decoding_rows(report):
    """[{column: cell}] with an entry for every row of the report."""
    return [_decoding_row(report, row) for row in report.rows]


def _decoding_row(report, row):
    baseline = report.baseline
    slowest, fastest = row.speed_range
    speedup = row.sentences_per_second / baseline.sentences_per_second
    return {
        "model": row.model,
        "engine": engine_label(report, row),
        "decoding": row.decoding,
        "BLEU": f"{row.bleu:.2f}",
        f"gain over {baseline.model}, {baseline.decoding} [95 %]": _interval(row.gain),
        "chrF": f"{row.chrf:.2f}",
        "length ratio": f"{row.length_ratio:.3f}",
        "weights, MB": f"{row.weight_bytes / 1e6:.2f}",
        "sentences/s": _format_speed(row.sentences_per_second),
        "slowest-fastest": f"{_format_speed(slowest)}-{_format_speed(fastest)}",
        "tokens/s": _format_speed(row.tokens_per_second),
        "speedup": f"{speedup:.1f}",
    }


def engine_label(report, row):
    """The row's engine, with its device if the report has several."""
    has_several_devices = len({other.device for other in report.rows}) > 1
    engine = row.engine.replace(":", " ")
    return f"{engine}, {_DEVICES[row.device]}" if has_several_devices else engine


def _interval(gain):
    if gain is None:
        return ""
    return "{bleu:+.2f} [{low:+.2f}, {high:+.2f}]".format(**gain)


def _format_speed(number):
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def model_rows(report):
    """[{column: cell}] with an entry for every model."""
    first = report.models[0]
    return [
        {
            "model": model.name,
            "parameters": f"{model.parameters:,}",
            "non-zero parameters": f"{model.nonzero_parameters:,}",
            "compression": f"{first.nonzero_parameters / model.nonzero_parameters:.1f}",
            "checkpoint, MB": f"{model.checkpoint_bytes / 1e6:.2f}",
            "mode mass": _percent(model.mode_mass),
            "greedy = beam": _percent(model.greedy_equals_beam),
        }
        for model in report.models
    ]


def _percent(fraction):
    return "" if fraction is None else f"{100 * fraction:.1f} %"


def _plural(number, noun):
    return f"{number} {noun}{'s' * (number != 1)}"


def explain_columns(report):
    """One paragraph that says how the columns were measured."""
    baseline = report.baseline
    beam = max(row.beam for row in report.rows)
    return (
        f"Measured on all {report.sentences} lines of {report.split}. Gain and speedup compare "
        f"with {baseline.model}, {baseline.decoding}, engine {engine_label(report, baseline)}; "
        "[95 %] is the interval by paired bootstrap. "
        f"BLEU {report.signatures['BLEU']}, chrF {report.signatures['chrF']}. Length ratio: "
        "tokens of the translations divided by those of the references. Speed: "
        f"{_plural(baseline.threads, 'thread')}, median of "
        f"{_plural(len(baseline.seconds[0]), 'round')} for each chunk of the text, models in "
        "turns; slowest-fastest: sentences/s if every chunk took its longest or shortest time. "
        "Weights: the file that the engine loads, for CTranslate2 with its vocabulary. "
        f"Compression: non-zero parameters of {baseline.model} divided by the model's. "
        f"Mode mass: the mean probability that a model gives to its own beam-{beam} output. "
        "Greedy = beam: how often greedy decoding finds the same output."
    )
