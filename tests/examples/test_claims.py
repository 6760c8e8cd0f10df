"""The page of claims, and the kept results that it is made from."""

import gzip
import importlib
import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

FOLDER = ROOT / "examples" / "multi30k"
RESULTS = FOLDER / "results"


@pytest.fixture(scope="module", autouse=True)
def modules():
    """The recipe's scripts import each other from their folder."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(FOLDER))
        yield


@pytest.fixture(scope="module")
def claims(modules):
    return importlib.import_module("claims")


@pytest.fixture(scope="module")
def kept(modules):
    return importlib.import_module("kept")


@pytest.mark.parametrize(
    "bleu, low, aim, above, verdict",
    [
        (4.3, 3.1, 4.2, 3, "reached"),
        (4.3, 2.9, 4.2, 3, "not reached"),
        (4.1, 3.5, 4.2, 3, "not reached"),
        (0.0, 0.0, 0, 0, "not reached"),
    ],
)
def test_verdicts(claims, bleu, low, aim, above, verdict):
    assert claims.verdict_on({"bleu": bleu, "low": low, "high": 9}, aim, above) == verdict


def test_every_row_of_the_recipe_has_a_label(claims):
    text = (FOLDER / "rows.sh").read_text()
    rows = re.search(r'^ALL="([^"]+)"', text, re.M)[1].split()
    assert {row.rpartition(".")[0] for row in rows} <= set(claims.labels())


LINES = {
    "reference": [
        "a dog runs in the park",
        "two men play music on a street",
        "the sky is blue",
    ],
    "good": ["a dog runs in the park", "two men play music on a street", "the sky is blue"],
    "bad": ["a dog is here", "two women play music on a street", "the sky"],
}


def evaluation(folder, system):
    """What ``fairseq-seqkd evaluate`` writes of one model."""
    rows = []
    for split in ("test", "test1"):
        (folder / "outputs" / split).mkdir(parents=True)
    for beam in (1, 5):
        outputs = {split: f"outputs/{split}/{beam}.txt" for split in ("test", "test1")}
        for split, name in outputs.items():
            for file, kind in ((name, system), (f"outputs/{split}/reference.txt", "reference")):
                (folder / file).write_text("".join(f"{line}\n" for line in LINES[kind]))
        rows.append({"beam": beam, "seeds": [{"lenpen": 1.4, "outputs": outputs}]})
    (folder / "report.json").write_text(json.dumps({"rows": rows}))
    return folder


def test_kept_translations_give_the_scores_of_sacrebleu(kept, tmp_path):
    from sacrebleu.metrics import BLEU

    for name, system in (("none.wide.1", "bad"), ("none.wide.2", "good")):
        row = tmp_path / "results" / "rows" / name
        row.mkdir(parents=True)
        kept.keep(evaluation(tmp_path / name, system), row)
        (row / "report.json").write_text((tmp_path / name / "report.json").read_text())
    with gzip.open(row / "test.beam5.txt.gz", "rt") as file:
        assert file.read().splitlines() == LINES["good"]
    method = kept.Method.of_rows(tmp_path / "results")["none.wide"]
    bad, good = (
        BLEU().corpus_score(2 * LINES[system], [2 * LINES["reference"]]).score
        for system in ("bad", "good")
    )
    assert [row.score("greedy").score for row in method.rows] == pytest.approx([bad, good])
    assert method.bleu("beam 5") == pytest.approx((bad + good) / 2)
    assert kept.lenpen_of(method.rows[0].report) == 1.4
    gain = method.gain("greedy", method)
    assert gain["bleu"] == gain["low"] == gain["high"] == 0


def test_kept_rows_agree_with_their_reports(kept):
    """BLEU of the committed translations is what evaluate reported when they were made."""
    for folder in sorted((RESULTS / "rows").glob("*")):
        row = kept.Row(folder)
        for reported in row.report["rows"]:
            decoding = "greedy" if reported["beam"] == 1 else f"beam {reported['beam']}"
            assert row.score(decoding).score == pytest.approx(reported["bleu"], abs=1e-6)


def test_the_page_is_made_from_the_kept_results():
    command = [sys.executable, FOLDER / "claims.py", "page", RESULTS]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert output.strip() in (RESULTS / "README.md").read_text()


def test_every_log_has_a_command_and_no_path_of_this_machine():
    names = ("tuning-*", "evaluate-*", "*.wide.*", "*.narrow.*", "*.lstm.*")
    logs = sorted(log for name in names for log in (RESULTS / "logs").glob(f"{name}.log"))
    assert logs
    for log in logs:
        first = log.read_text().splitlines()[0]
        assert re.match(r"\$ (fairseq-|env )", first), log
        assert "/home/" not in first and "/root" not in first, log


def test_a_page_of_the_rows_that_are_there(claims, kept, tmp_path, capsys):
    """What lacks a row says so, and the best student is that of the rows so far."""
    for name, system in (("none.wide.1", "bad"), ("teacher", "good")):
        row = tmp_path / "results" / "rows" / name
        row.mkdir(parents=True)
        kept.keep(evaluation(tmp_path / name, system), row)
        shutil.copy(tmp_path / name / "report.json", row)
    (tmp_path / "results" / "logs").mkdir()
    claims.print_page(tmp_path / "results")
    page = capsys.readouterr().out
    assert page.count("Not measured yet: ") == 4
    assert "a distilled student is missing" in page and "| [(teacher)]" in page
    for name, bleu in (("seq_kd-a.wide.1", 30), ("seq_kd-b.wide.1", 31), ("mbr.narrow.1", 32)):
        shutil.copytree(row, tmp_path / "results" / "rows" / name)
        log = f"valid on 'valid' subset | bleu {bleu} | num_updates 10 | best_bleu {bleu}\n"
        (tmp_path / "results" / "logs" / f"{name}.log").write_text(
            f"2026-01-01 00:00:00 | INFO | valid | epoch 001 | {log}"
        )
    assert kept.Results(tmp_path / "results").best_row == "seq_kd-b.wide.1"
    claims.print_page(tmp_path / "results")
    assert "best distilled student over no distillation" in capsys.readouterr().out
