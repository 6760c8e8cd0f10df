"""Several splits: each and all together."""

import csv
import json
import shutil

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.evaluate.settings import Settings
from fairseq_seqkd.evaluate.table import decoding_rows, tables


@pytest.fixture(scope="session")
def two_tests(text, data, tmp_path_factory):
    """A data-bin with a second test set: the validation set under another name."""
    folder = tmp_path_factory.mktemp("two") / "data-bin"
    shutil.copytree(data, folder)
    for side in ("src", "tgt"):
        for kind in ("idx", "bin"):
            name = f"src-tgt.{side}.{kind}"
            shutil.copy(folder / f"valid.{name}", folder / f"test1.{name}")
    return folder


@pytest.fixture(scope="session")
def references(text):
    return [str(text / "test.tgt"), str(text / "valid.tgt")]


@pytest.fixture(scope="session")
def out(two_tests, references, checkpoints, tmp_path_factory):
    """The report's folder of a command on both."""
    folder = tmp_path_factory.mktemp("report")
    named = [f"{name}={path}" for name, path in checkpoints.items()]
    cli.main(
        ["evaluate", str(two_tests), "--split", "test,test1", "--ref", *references]
        + ["--checkpoints", *named, "--engines", "fairseq", "--beams", "2", "--rounds", "1"]
        + ["--out", str(folder)]
    )
    return folder


@pytest.fixture(scope="session")
def content(out):
    return json.loads((out / "report.json").read_text())


SCORES = ("bleu", "chrf", "brevity_penalty", "length_ratio")


def test_each_split_is_scored_as_if_alone(content, two_tests, references, checkpoints):
    from fairseq_seqkd.evaluate.measure import evaluate

    assert content["splits"] == {"test": 20, "test1": 24} and content["sentences"] == 44
    for name, reference in zip(("test", "test1"), references):
        quick = {"engines": ["fairseq"], "beams": (2,), "rounds": 1}
        alone, _ = evaluate(
            checkpoints, Settings(str(two_tests), name, reference_files=[reference], **quick)
        )
        for row, expected in zip(content["rows"], alone.rows):
            found = row["splits"][name]
            assert {key: found[key] for key in SCORES} == pytest.approx(
                {key: getattr(expected, key) for key in SCORES}, abs=0.01
            )
            assert found["gain"] == pytest.approx(expected.gain, abs=0.01)


def test_the_main_table_pools_them(content, references):
    """Corpus scores of all lines together, not means of scores."""
    lines = [open(path).read().splitlines() for path in references]
    lengths = [BLEU().corpus_score(side, [side]).ref_len for side in lines]
    for row in content["rows"]:
        parts = [row["splits"][name] for name in ("test", "test1")]
        assert row["sentences"] == 44
        pooled = np.dot([part["length_ratio"] for part in parts], lengths) / sum(lengths)
        assert row["length_ratio"] == pytest.approx(pooled)
        assert min(p["chrf"] for p in parts) < row["chrf"] < max(p["chrf"] for p in parts)
        bleu = [part["bleu"] for part in parts]
        assert row["bleu"] != pytest.approx(np.mean(bleu), abs=1e-9)


def test_outputs_are_plain_text_with_these_scores(content, out, references):
    """Line for line with the references, for sacreBLEU, COMET and other tools."""
    for row in content["rows"]:
        (seed,) = row["seeds"]
        pooled, gold = [], []
        for name, reference in zip(("test", "test1"), references):
            texts, given, sources = (
                (out / path).read_text().splitlines()
                for path in (
                    *(seed["outputs"][name], f"outputs/{name}/reference.txt"),
                    f"outputs/{name}/source.txt",
                )
            )
            assert given == open(reference).read().splitlines()
            assert len(texts) == len(given) == len(sources)
            scores = row["splits"][name]
            assert sacrebleu.corpus_bleu(texts, [given]).score == scores["bleu"]
            assert sacrebleu.corpus_chrf(texts, [given]).score == scores["chrf"]
            pooled, gold = pooled + texts, gold + given
        assert sacrebleu.corpus_bleu(pooled, [gold]).score == row["bleu"]
        assert sacrebleu.corpus_chrf(pooled, [gold]).score == row["chrf"]


def test_sources_are_those_of_the_data(out, text):
    lines = (text / "test.src").read_text().splitlines()
    found = (out / "outputs" / "test" / "source.txt").read_text().splitlines()
    for one, line in zip(found, lines):
        assert len(one.split()) == len(line.split())
        assert all(a in (b, "<unk>") for a, b in zip(one.split(), line.split()))


def test_the_tables_have_each_split(out, content):
    markdown = (out / "report.md").read_text()
    heads = [line for line in markdown.splitlines() if line.startswith("test")]
    assert heads == ["test, 20 lines:", "test1, 24 lines:"]
    assert "all 44 lines of test and test1 together" in markdown
    for row in content["rows"]:
        assert f" {row['splits']['test1']['bleu']:.2f} |" in markdown
    page = (out / "report.html").read_text()
    assert "<h2>test1, 24 lines</h2>" in page
    with open(out / "report.csv") as file:
        lines = list(csv.DictReader(file))
    for line, row in zip(lines, content["rows"]):
        assert float(line["test1_bleu"]) == row["splits"]["test1"]["bleu"]
    assert (
        float(lines[1]["test_gain_low"]) == content["rows"][1]["splits"]["test"]["gain"]["low"]
    )


def test_the_command_of_a_row_has_all_splits(content, references):
    command = content["rows"][0]["command"]
    assert "fairseq-seqkd evaluate " in command and "--split test,test1" in command
    assert f"--ref {' '.join(references)}" in command


def test_one_split_has_one_table(report):
    assert [title for title, _ in tables(report)] == ["", "What goes wrong, in 20 lines", ""]
    (name,) = report.splits
    for row in report.rows:
        assert row.splits[name].bleu == row.bleu and row.splits[name].gain == row.gain
    assert "brevity penalty" in decoding_rows(report)[0]


def test_brevity_penalty_of_short_output(report):
    for row in report.rows:
        expected = min(1, np.exp(1 - 1 / row.length_ratio))
        assert row.brevity_penalty == pytest.approx(expected)


@pytest.mark.parametrize(
    "split, refs, message",
    [
        ("test,test", 2, "--split is 'test,test': 'test' is named twice"),
        ("test,", 1, "--split is 'test,', expected names of splits separated by commas"),
        ("test,test1", 1, "--ref names 1 files, expected 2: one for each of test, test1, in"),
        ("test1,test", 2, "has 20 lines, expected the 24 of 'test1'"),
        ("test,test2", 2, "no binarised 'test2' split"),
    ],
)
def test_bad_splits(two_tests, references, teacher, refused, split, refs, message):
    arguments = ["--split", split, "--ref", *references[:refs], "--checkpoints", teacher]
    assert message in refused("evaluate", two_tests, *arguments, "--engines", "fairseq")


def test_a_missing_translation_is_named_by_its_split(report):
    from fairseq_seqkd.evaluate.corpus import Corpus

    corpus = Corpus({"test": slice(0, 3), "test1": slice(3, 5)}, ["x"] * 5, ["y"] * 5, [1] * 5)
    assert [corpus.locate(i) for i in (0, 2, 3)] == [
        *("line 1 of 'test'", "line 3 of 'test'"),
        "line 1 of 'test1'",
    ]
