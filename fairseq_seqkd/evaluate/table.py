"""Rows as a Markdown table."""

from tabulate import tabulate

HEADERS = [
    "model",
    "parameters",
    "not zero",
    "times fewer",
    "decoding",
    "BLEU",
    "sentences/s",
    "times faster",
]


def markdown(rows):
    """A table that compares every row with the first model's largest beam.

    Args:
        rows: :class:`~fairseq_seqkd.evaluate.measure.Row`, at least one
    """
    first = max((r for r in rows if r.name == rows[0].name), key=lambda row: row.beam)
    cells = [
        [
            row.name,
            f"{row.parameters:,}",
            f"{row.nonzero:,}",
            f"{first.nonzero / row.nonzero:.1f}",
            "greedy" if row.beam == 1 else f"beam {row.beam}",
            f"{row.bleu:.2f}",
            f"{row.sentences_per_second:.0f}",
            f"{row.sentences_per_second / first.sentences_per_second:.1f}",
        ]
        for row in rows
    ]
    align = ["left", *["right"] * 3, "left", *["right"] * 3]
    table = tabulate(cells, HEADERS, tablefmt="github", colalign=align, disable_numparse=True)
    return (
        f"{table}\n\n"
        f"BLEU on all {first.sentences} lines, {first.signature}. Speed is the median of "
        f"{len(first.seconds)} rounds in turns, {first.threads} threads; fewer (of "
        f"those that are not zero) and faster: than {first.name} with beam {first.beam}."
    )
