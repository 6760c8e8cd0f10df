"""Every benchmark with SMOKE=1: all rows of its tables, with numbers that can be true."""

import re
import subprocess
import sys

import pytest
import torch
from conftest import CTRANSLATE2, ROOT, TINY
from recipes import rows_of, run_script

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.losses.divergences import DIVERGENCES
from fairseq_seqkd.losses.text_weighting import NLL_WEIGHTINGS, SENTENCE_WEIGHTINGS
from fairseq_seqkd.losses.weighting import WEIGHTINGS


@pytest.fixture
def settings(data, teacher, word_kd_student, tmp_path):
    """The settings of benchmarks that need checkpoints."""
    student = word_kd_student[0] / "checkpoint_last.pt"
    return dict(SMOKE=1, WORK=tmp_path, DATA=data, TEACHER=teacher, STUDENT=student)


def numbers(cells):
    return [float(cell.replace(",", "")) for cell in cells]


def test_steps(settings, tmp_path):
    output = run_script("benchmarks/steps.sh", **settings)
    report = (tmp_path / "benchmark" / "steps.md").read_text()
    assert report in output and "Medians of 1 rounds" in report
    (_, *rows) = rows_of(report)
    methods = [
        "cross-entropy",
        "word_kd",
        "imit_kd, opt",
        "imit_kd, full",
        "gkd",
        "interleaved",
        *("switch", "replay, fresh", "replay, replayed", "dskd", "tie-kd"),
    ]
    weightings = [
        f"{axis.name}, {name}"
        for axis in (WEIGHTINGS, NLL_WEIGHTINGS, SENTENCE_WEIGHTINGS)
        for name in axis.options
        if name != "uniform"
    ]
    assert [row[0] for row in rows] == [
        *methods,
        *(f"distill, {d}" for d in DIVERGENCES.options),
        *weightings,
    ]
    for method, *cells in rows:
        ratio, total, generating, scoring, training = numbers(cells)
        assert ratio > 0 and total > 0 and training > 0
        assert (scoring > 0) == (method not in ("cross-entropy", "dskd"))
        assert (generating > 0) == method.startswith(
            ("imit_kd", "gkd", "interleaved", "switch", "replay", "nll_weighting")
        )
        assert abs(total - generating - scoring - training) <= 2  # each is rounded


def test_word_kd(settings, tmp_path):
    output = run_script("benchmarks/word_kd.sh", **settings)
    for corpus in ("multi30k", "random"):
        report = (tmp_path / "benchmark" / f"word_kd-{corpus}.md").read_text()
        assert report in output
        costs, agreement = (rows_of(table)[1:] for table in re.split("Medians.*", report))
        sources = [
            "word_kd, live teacher",
            "word_kd, live teacher's top 8",
            "word_kd, cached top 8",
        ]
        stock = ["stock label_smoothed_cross_entropy", "teacher forward pass alone"]
        assert [row[0] for row in costs] == [*stock, *sources]
        assert [row[4] != "" for row in costs] == [False, False, True, True, False]
        for row in costs:
            assert min(numbers(filter(None, row[1:]))) > 0, row
        assert [row[0] for row in agreement] == sources
        losses, distances = zip(*(numbers(row[1:]) for row in agreement))
        assert min(losses) > 0
        assert distances[0] == 0 < distances[1] and losses[1] < losses[0]
        if corpus == "random":  # the other one has a sentence that is too long for the teacher
            assert losses[1] == pytest.approx(losses[2], abs=1e-3)
            assert distances[1] == pytest.approx(distances[2], abs=1e-3)
    logs = tmp_path / "logs"
    assert "done in" in output and {"again_cache.log", "again_validate.log"} <= {
        log.name for log in logs.iterdir()
    }


@CTRANSLATE2
def test_pseudo_targets(tmp_path):
    output = run_script("benchmarks/pseudo_targets.sh", SMOKE=1, WORK=tmp_path)
    report = (tmp_path / "benchmark" / "table.md").read_text()
    assert report in output
    (_, *rows) = rows_of(report)
    ours = ["fairseq-seqkd, fairseq", "fairseq-seqkd, ctranslate2 float32"]
    systems = ["stock fairseq-generate", *ours, "fairseq-seqkd, ctranslate2"]
    assert [row[0] for row in rows] == 2 * systems
    assert [row[1][0] for row in rows] == [*"11112222"]
    for row in rows:
        seconds, speed, relative, bleu, megabytes = numbers(row[2:])
        assert min(seconds, speed, relative, bleu, megabytes) > 0
    lines = report.split("\n\n")[1:]
    assert len(lines) == 4
    assert "ctranslate2 took float32, 512 tokens" in lines[0]
    assert lines[0].count("5-best lists overlap") == 2
    assert re.search(r" MB for 40 sentences, \d+ MB for 400: ", lines[1])
    assert "by bleu" in lines[2] and "by chrf" in lines[3]


@CTRANSLATE2
def test_mbr(settings, tmp_path):
    """The script exits with an error if a plain loop selects another hypothesis."""
    output = run_script("benchmarks/mbr.sh", **settings)
    report = (tmp_path / "benchmark" / "mbr.md").read_text()
    assert report in output and "20 sentences, medians of 1 rounds" in report
    (_, *rows) = rows_of(report)
    selecting = ["best", "mbr", "mbr, weighted"]
    steps = ["decoding, CTranslate2 float32", *(f"selecting {name}" for name in selecting)]
    assert [row[:2] for row in rows] == [["4", step] for step in steps]
    for row in rows:
        assert min(numbers(row[2:4])) >= 0
    assert [row[5] for row in rows] == ["", "", "0", "0"]


def test_text(tmp_path):
    output = run_script("benchmarks/text.sh", SMOKE=1, WORK=tmp_path, LINES=3000)
    head, row = rows_of(output)
    assert head == ["lines", "kept", "seconds", "lines/s", "peak MB", "bytes a line"]
    # Of ten lines one is a duplicate, and of a hundred another one is excluded.
    assert row[:2] == ["3000", "2700"]
    assert min(numbers(row[2:5])) >= 0


def test_gpu_dry_run(tmp_path):
    """Some checks; the whole dry run takes minutes."""
    output = run_script("benchmarks/gpu.sh", SMOKE=1, WORK=tmp_path / "gpu", ONLY="pruning")
    (_, *rows) = rows_of((tmp_path / "gpu" / "checks.md").read_text())
    assert [row[:2] for row in rows] == [
        ["pruning, --fp16", "ok"],
        ["pruning, --memory-efficient-fp16", "ok"],
        ["pruning resumed, --memory-efficient-fp16", "ok"],
    ]
    assert "60.0 % zeros" in rows[0][2] and "equal bit for bit" in rows[2][2]
    assert "CPU (dry run)" in output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_without_one(tmp_path):
    """It says what it would have run, and leaves the folder alone."""
    output = run_script("benchmarks/gpu.sh", fails=True, WORK=tmp_path / "gpu")
    assert "torch sees no GPU here" in output and "SMOKE=1" in output
    assert "gkd, --fp16" in output and "evaluate on both devices" in output
    assert not (tmp_path / "gpu").exists()


def test_on_policy(data, teacher, word_kd_student, tmp_path):
    """The trained model is the student, whose translations come to an end."""
    limits = ["--max-source-positions", "30", "--max-target-positions", "60"]
    scorer = word_kd_student[0] / "checkpoint_last.pt"
    models = {"TEACHER": scorer, "STUDENT": teacher, "MODEL": " ".join([*TINY, *limits])}
    settings = {"SMOKE": 1, "WORK": tmp_path, "DATA": data, **models}
    run_script("benchmarks/on_policy.sh", warm=False, **settings)
    report = (tmp_path / "benchmark" / "on_policy.md").read_text()
    costs, scores = (rows_of(table) for table in report.split("\n\n")[:2])
    names = ["cross-entropy", "near-8", "imit_kd"]
    assert [row[0] for row in costs[1:]] == [row[0] for row in scores[1:]] == names
    assert costs[1][1:4] == ["1.00"] * 3
    for row in costs[1:]:
        ratio, _, in_time, per_update, making, training, starting = numbers(row[1:])
        assert min(ratio, in_time, per_update, training, starting) > 0
        assert (making > 0) == row[0].startswith("near")
    for row in scores[1:]:
        assert row[1] == "8" and float(row[3]) >= 0
    (_, near, _) = scores[1:]
    assert near[5] == f"{near[3]} (8)"  # after its own time


def test_speculative(settings, tmp_path):
    """Greedy output is the teacher's own, in every row that is greedy."""
    output = run_script("benchmarks/speculative.sh", **settings)
    report = (tmp_path / "benchmark" / "speculative.md").read_text()
    assert report in output and "Medians of 1 rounds over 8 sentences" in report
    (_, *rows) = rows_of(report)
    drafted = ["speculative, greedy, 2 drafted", "speculative, samples, 2 drafted"]
    alone = [f"teacher, {how}" for how in ("greedy", "samples", "beam 5")]
    batches = [f"teacher, {how}, in batches" for how in ("greedy", "beam 5")]
    expected = [
        alone[0],
        drafted[0],
        alone[1],
        drafted[1],
        alone[2],
        "student, greedy",
        *batches,
    ]
    assert [row[0] for row in rows] == expected
    for name, speed, relative, *drafts, equal in rows:
        assert min(numbers([speed, relative])) > 0
        assert [cell != "" for cell in drafts] == [name in drafted] * 3
        if "greedy" in name and "student" not in name:
            assert equal == "8", name


@CTRANSLATE2
def test_shipped(data, text, teacher, tmp_path):
    """With a shortlist and without, each by its own translate.py."""
    for name, shortlist in (("a", []), ("b", ["--shortlist", data])):
        out = ["--to", "ctranslate2", "--data", data, "--no-check", "--out", tmp_path / name]
        main(["export", *map(str, [teacher, *out, *shortlist])])
    output = subprocess.run(
        [
            sys.executable,
            ROOT / "examples" / "benchmarks" / "shipped.py",
            "a",
            "b",
            "--rounds=1",
        ],
        input=(text / "test.src").read_bytes(),
        stdout=subprocess.PIPE,
        check=True,
        cwd=tmp_path,
    ).stdout.decode()
    _, *rows = rows_of(output)
    assert [row[0] for row in rows] == ["a", "b"] and rows[0][2] == rows[0][4] == "1.00"
    assert all(value > 0 for row in rows for value in numbers(row[1:]))
    assert "20 lines, one thread, medians of 1 rounds" in output


@CTRANSLATE2
def test_sampling(data, teacher):
    """A new Translator after set_random_seed draws the same samples."""
    script = ROOT / "examples" / "benchmarks" / "sampling.py"
    flags = ["--topk", "3", "--rounds", "1"]
    command = [sys.executable, script, data, teacher, *flags]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()
    _, *rows = rows_of(output)
    assert [row[0] for row in rows] == ["fairseq", "CTranslate2 float32", "CTranslate2 int8"]
    assert all(value > 0 for row in rows for value in numbers(row[1:]))
    assert "CTranslate2 drew the same samples again." in output
