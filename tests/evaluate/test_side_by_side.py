"""The sentences on which two rows differ most."""

import html
import json
from types import SimpleNamespace

import pytest
from sacrebleu.metrics import CHRF

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.evaluate.corpus import Corpus
from fairseq_seqkd.evaluate.report import ModelSummary, Report, Row
from fairseq_seqkd.evaluate.side_by_side import compare_sentences, default_rows


def make_report(rows):
    """Rows are (model, beam, BLEU)."""
    models = [ModelSummary(name, "x.pt", "data", 1, 1, 1) for name, _, _ in rows]
    rows = [Row(name, "fairseq", "cpu", 1, beam, 0, "", bleu=bleu) for name, beam, bleu in rows]
    return Report("test", 1, models, rows)


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([("a", 5, 30), ("b", 5, 31), ("c", 5, 32), ("c", 1, 33)], ["a:beam5", "c:beam5"]),
        ([("a", 5, 30), ("b", 1, 29)], ["a:beam5", "b:beam1"]),
        ([("a", 1, 29), ("a", 5, 30)], ["a:beam5", "a:beam1"]),
        ([("a", 1, 29)], ["a:beam1"]),
    ],
)
def test_default_rows(rows, expected):
    assert [row.name for row in default_rows(make_report(rows))] == expected


def run_of(row, *texts):
    return SimpleNamespace(row=row, seeds=[SimpleNamespace(texts=list(texts))])


def test_the_largest_differences_come_first():
    report = make_report([("a", 1, 1), ("b", 1, 2)])
    references = [f"the {i} dogs" for i in range(30)]
    parts = {"test": slice(0, 10), "more": slice(10, 30)}
    corpus = Corpus(parts, references, ["s"] * 30, [1] * 30)
    worse = [text if i % 3 else text[: 2 + i // 3] for i, text in enumerate(references)]
    runs = [run_of(report.rows[0], *references), run_of(report.rows[1], *worse)]
    compare_sentences(report, runs, corpus, ["b:beam1", "a:beam1"])
    found = report.side_by_side
    assert found.rows == ["b:beam1", "a:beam1"]
    assert len(found.sentences) == 9  # the others are equal
    gaps = [sentence.chrf[1] - sentence.chrf[0] for sentence in found.sentences]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] > 0
    first = found.sentences[0]
    assert first.where == "line 1 of 'test'" and first.texts == ["th", "the 0 dogs"]
    assert first.chrf[0] == CHRF().sentence_score("th", ["the 0 dogs"]).score
    assert "line 3 of 'more'" in {sentence.where for sentence in found.sentences}


def test_at_most_twenty():
    report = make_report([("a", 1, 1), ("b", 1, 2)])
    references = [f"the {i} dogs" for i in range(50)]
    corpus = Corpus({"test": slice(0, 50)}, references, ["s"] * 50, [1] * 50)
    runs = [run_of(report.rows[0], *references), run_of(report.rows[1], *["x"] * 50)]
    compare_sentences(report, runs, corpus)
    assert len(report.side_by_side.sentences) == 20


def test_the_page_shows_them(data, checkpoints, text, tmp_path):
    named = [f"{name}={path}" for name, path in checkpoints.items()]
    cli.main(
        ["evaluate", str(data), "--ref", str(text / "test.tgt"), "--engines", "fairseq"]
        + ["--beams", "1", "2", "--rounds", "1", "--checkpoints", *named]
        + ["--side-by-side", "student:beam1", "teacher", "--out", str(tmp_path)]
    )
    content = json.loads((tmp_path / "report.json").read_text())
    shown = content["side_by_side"]
    assert shown["rows"] == ["student:beam1", "teacher:beam2"] and shown["sentences"]
    page = (tmp_path / "report.html").read_text()
    assert "Where student, greedy and teacher, beam 2 differ most" in page
    sources = (tmp_path / "outputs" / "test" / "source.txt").read_text().splitlines()
    outputs = {
        (row["model"], row["beam"]): (tmp_path / row["seeds"][0]["outputs"]["test"])
        .read_text()
        .splitlines()
        for row in content["rows"]
    }
    for sentence in shown["sentences"]:
        line = int(sentence["where"].split()[1]) - 1
        assert sentence["source"] == sources[line]
        pair = outputs["student", 1][line], outputs["teacher", 2][line]
        assert tuple(sentence["texts"]) == pair
        for one in (sentence["source"], sentence["reference"], *pair):
            assert html.escape(one, quote=False).replace('"', "&#34;") in page


def test_rows_that_are_not_there(data, teacher, refused):
    flags = ["--checkpoints", f"t={teacher}", "--side-by-side", "t:beam1", "x"]
    message = refused("evaluate", data, *flags)
    assert (
        "--side-by-side: found 'x', expected NAME or NAME:beamN, one of t:beam1, t:beam5"
        in message
    )
