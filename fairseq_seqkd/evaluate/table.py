"""The tables of a report: how every model decodes, and how large it is."""

from tabulate import tabulate

from fairseq_seqkd.evaluate.tuning import GRID

_DEVICES = {"cpu": "CPU", "cuda": "GPU"}
_LEFT_ALIGNED = ("model", "engine", "decoding", "output", "draft")


def render_markdown(report):
    """The tables, an explanation of their columns, and the notes, as Markdown."""
    lines = []
    for title, rows in tables(report):
        lines += [*([f"{title}:", ""] if title else []), _markdown_table(rows), ""]
    return "\n".join([*lines, explain_columns(report), *(f"- {note}" for note in report.notes)])


def tables(report):
    """[(title, [{column: cell}])] of every table; a title may be empty."""
    return [
        ("", decoding_rows(report)),
        *_split_tables(report),
        *_defect_tables(report),
        *_draft_tables(report),
        ("", model_rows(report)),
    ]


def _defect_tables(report):
    """A table of what goes wrong in the output, if it was counted."""
    if not report.reference_defects:
        return []
    references = {"output": "references", **_defect_cells(report, report.reference_defects)}
    rows = [
        {"output": _row_text(report, row), **_defect_cells(report, row.defects)}
        for row in report.rows
    ]
    return [(f"What goes wrong, in {_plural(report.sentences, 'line')}", [references, *rows])]


def _draft_tables(report):
    """A table of the models that draft for a teacher, if that was measured."""
    if not report.drafts:
        return []
    first = report.drafts[0]
    several_devices = len({row.device for row in report.drafts}) > 1
    title = f"As drafts of {first.teacher}, {_plural(first.draft_tokens, 'token')} a round"
    return [(title, [_draft_cells(row, several_devices) for row in report.drafts])]


def _draft_cells(row, with_device):
    return {
        "draft": row.model,
        "decoding": f"{row.decoding}, {_DEVICES[row.device]}" if with_device else row.decoding,
        "drafted": f"{row.drafted_per_round:.2f}",
        "accepted": f"{row.accepted_per_round:.2f}",
        "acceptance rate": _percent(row.acceptance_rate),
        "block efficiency": f"{row.block_efficiency:.2f}",
        "step, ms": f"{1000 * row.step_seconds:.2f}",
        "teacher's step, ms": f"{1000 * row.teacher_step_seconds:.2f}",
        "cost ratio": f"{row.cost_ratio:.2f}",
        "expected speedup": f"{row.expected_speedup:.2f}",
    }


def _defect_cells(report, defects):
    return {
        "empty": f"{defects['empty']:g}",
        "copies of the source": f"{defects['copies']:g}",
        "loops": f"{defects['loops']:g}",
        "over-long": f"{defects['overlong']:g}",
        "numbers lost": f"{defects['lost_numbers']:g} of {report.lines_with_numbers}",
    }


def _split_tables(report):
    """A table of scores for every split, if there are several."""
    if len(report.splits) < 2:
        return []
    return [
        (
            f"{name}, {_plural(sentences, 'line')}",
            [
                {**_way_cells(report, row), **_score_cells(report, row.splits[name])}
                for row in report.rows
            ],
        )
        for name, sentences in report.splits.items()
    ]


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
        **_way_cells(report, row),
        **_score_cells(report, row),
        "weights, MB": f"{row.weight_bytes / 1e6:.2f}",
        "sentences/s": _format_speed(row.sentences_per_second),
        "slowest-fastest": f"{_format_speed(slowest)}-{_format_speed(fastest)}",
        "tokens/s": _format_speed(row.tokens_per_second),
        "speedup": f"{speedup:.1f}",
    }


def _way_cells(report, row):
    """The cells that say which row it is."""
    cells = {
        "model": row.model,
        "engine": engine_label(report, row),
        "decoding": row.decoding,
    }
    if any(seed.lenpen != 1 for other in report.rows for seed in other.seeds):
        penalties = ", ".join(f"{seed.lenpen:g}" for seed in row.seeds)
        cells["length penalty"] = penalties if row.beam > 1 else ""
    return cells


def _score_cells(report, scores):
    """The cells of a `Row` or of its `Scores` on one split."""
    gains = {
        f"gain over {row.model}, {row.decoding} [95 %]": _interval(scores.gains.get(row.name))
        for row in report.compared
    }
    several = any(len(row.seeds) > 1 for row in report.rows)
    each = ", ".join(f"{bleu:.2f}" for bleu in scores.seed_bleu)
    return {
        "BLEU": f"{scores.bleu:.2f}",
        **({"of each seed": each if len(scores.seed_bleu) > 1 else ""} if several else {}),
        "brevity penalty": f"{scores.brevity_penalty:.3f}",
        "length ratio": f"{scores.length_ratio:.3f}",
        **gains,
        "chrF": f"{scores.chrf:.2f}",
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


def _splits_text(report):
    """The splits by name, and that they are pooled if there are several."""
    *most, last = report.split.split(",")
    return f"{', '.join(most)} and {last} together" if most else last


def _row_text(report, row):
    return f"{row.model}, {row.decoding}, engine {engine_label(report, row)}"


def explain_columns(report):
    """One paragraph that says how the columns were measured."""
    signatures = ", ".join(f"{name} {text}" for name, text in report.signatures.items())
    return " ".join(
        [
            f"Measured on all {report.sentences} lines of {_splits_text(report)}.",
            *_explain_gains(report),
            f"{signatures}.",
            "Length ratio: tokens of the translations divided by those of the references. "
            "Brevity penalty: the factor of BLEU that a ratio below 1 costs.",
            *_explain_length_penalty(report),
            *_explain_defects(report),
            *_explain_drafts(report),
            _explain_speed(report),
            _explain_sizes(report),
        ]
    )


def _explain_gains(report):
    compared = "; ".join(_row_text(report, row) for row in report.compared)
    several = len(report.compared) > 1
    what = "Gains" if several else "Gain and speedup"
    yield f"{what} compare with {compared}; [95 %] is the interval by paired bootstrap."
    if several:
        yield f"The speedup compares with {_row_text(report, report.baseline)}."
    if any(len(row.seeds) > 1 for row in report.rows):
        yield (
            "Where a model has several seeds, all numbers are means over them, also in each "
            "resample of the bootstrap; the speed is that of the first."
        )


def _explain_length_penalty(report):
    if report.lenpen_split is None:
        return []
    return [
        f"Length penalty: the best BLEU of each model and beam on {report.lenpen_split}, among "
        f"{GRID[0]}, {GRID[1]} ... {GRID[-1]}; of equals the smallest."
    ]


def _explain_defects(report):
    if report.reference_defects:
        yield (
            "Loops: lines with a phrase three times in a row, and more often than their source "
            "has one. Over-long: more than twice the characters, and 20 more, that references "
            "have for such a source. Numbers lost: lines that lack a number of their source."
        )


def _explain_drafts(report):
    if report.drafts:
        yield (
            "Drafts: speculative decoding, each line alone; samples are at temperature 1. "
            "Drafted and accepted: mean tokens of a draft, and those of them that the teacher "
            "kept. Acceptance rate: kept ones among those up to the first rejected one. Block "
            "efficiency: tokens for each run of the teacher. Cost ratio: the time in which the "
            "model reads a token, divided by the teacher's. Expected speedup over the teacher "
            "alone: block efficiency / (drafted x cost ratio + 1) (Leviathan et al. 2023, "
            "theorem 3.8, with measured means), if the teacher looks at a draft in the time of "
            "one token."
        )


def _explain_speed(report):
    baseline = report.baseline
    return (
        f"Speed: {_plural(baseline.threads, 'thread')}, median of "
        f"{_plural(len(baseline.seconds[0]), 'round')} for each chunk of the text, models in "
        "turns; slowest-fastest: sentences/s if every chunk took its longest or shortest time."
    )


def _explain_sizes(report):
    beam = max(row.beam for row in report.rows)
    return (
        "Weights: the file that the engine loads, for CTranslate2 with its vocabulary. "
        f"Compression: non-zero parameters of {report.models[0].name} divided by the model's. "
        f"Mode mass: the mean probability that a model gives to its own beam-{beam} output. "
        "Greedy = beam: how often greedy decoding finds the same output."
    )
