"""What goes wrong in the output."""

import pytest

from fairseq_seqkd.evaluate.defects import DefectCounter, is_copy, is_empty, lost_numbers
from fairseq_seqkd.evaluate.table import explain_columns, tables


@pytest.mark.parametrize(
    "source, text, expected",
    [
        ("Ein Hund .", "ein  hund .", True),
        ("Ein Hund .", "Ein Hund", False),
        ("", "", False),
        (" ", "", False),
    ],
)
def test_copies(source, text, expected):
    assert is_copy(source, text) == expected


def test_empty():
    assert [is_empty(text) for text in ("", " \t", "x")] == [True, True, False]


@pytest.mark.parametrize(
    "source, text, expected",
    [
        ("am 3. Mai 2016", "on May 3 , 2016", []),
        ("1.000,5 Euro um 10.30", "1,000.5 euros at 10,30", []),
        ("5 und 5", "5 and five", ["5"]),
        ("Nummer 61", "number 16", ["61"]),
        ("kein", "7", []),
    ],
)
def test_numbers(source, text, expected):
    assert list(lost_numbers(source, text).elements()) == expected


def test_over_long_is_relative_to_the_references():
    """They have twice the characters of their sources."""
    sources, references = ["a" * 10, "b" * 20], ["x" * 20, "y" * 40]
    count = DefectCounter(sources, references)
    assert count(references)["overlong"] == 0
    assert count(["x" * 60, "y" * 100])["overlong"] == 0
    assert count(["x" * 61, "y" * 101])["overlong"] == 2


def test_a_line_may_have_several():
    count = DefectCounter(["Nr. 7", "gut gut gut", "so"], ["no. 7", "good", "so so"])
    assert count.lines_with_numbers == 1
    # A loop is no fault where the source has it as well.
    assert count(["", "gut gut gut", "so so so"]) == {
        **{"empty": 1, "copies": 1, "loops": 1, "overlong": 0, "lost_numbers": 1}
    }


def test_the_report_has_a_table(report):
    """Of every row, and of the references first."""
    (table,) = [rows for title, rows in tables(report) if title.startswith("What goes wrong")]
    ways = [(row.model, row.decoding, row.engine.replace(":", " ")) for row in report.rows]
    names = ["{}, {}, engine {}".format(*way) for way in ways]
    assert [row["output"] for row in table] == ["references", *names]
    for cells, row in zip(table[1:], report.rows):
        assert cells["loops"] == f"{row.defects['loops']:g}"
    # Models that have hardly learned anything: they repeat words.
    assert max(row.defects["loops"] for row in report.rows) > 0
    assert report.reference_defects["loops"] == report.reference_defects["empty"] == 0
    assert "Loops: lines with a phrase three times in a row" in explain_columns(report)
