"""Differences against any row, and several seeds of one row."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu
from conftest import train
from sacrebleu.metrics import BLEU

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.cli.evaluate import parse_named_paths
from fairseq_seqkd.evaluate.loading import seed_paths
from fairseq_seqkd.evaluate.quality import RESAMPLES, SEED
from fairseq_seqkd.evaluate.report import row_name

FLAGS = ["--engines", "fairseq", "--beams", "1", "2", "--rounds", "1", "--max-len-b", "12"]


@pytest.fixture(scope="module")
def seeds(data, tmp_path_factory):
    """Two trainings that differ in their seed."""
    folder = tmp_path_factory.mktemp("seeds")
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "100"]
    for seed in ("1", "2"):
        limits = ["--lr", "0.02", "--seed", seed, "--max-target-positions", "60"]
        train(data, folder / seed, *loss, *limits)
    return [str(folder / seed / "checkpoint_last.pt") for seed in ("1", "2")]


@pytest.fixture(scope="module")
def out(data, text, seeds, checkpoints, tmp_path_factory):
    """A report on a model of two seeds, a student, and two rows that all are compared with."""
    folder = tmp_path_factory.mktemp("report")
    named = [f"none={seeds[0]},{seeds[1]}", f"student={checkpoints['student']}"]
    cli.main(
        [
            "evaluate",
            str(data),
            "--ref",
            str(text / "test.tgt"),
            *FLAGS,
            "--checkpoints",
            *named,
        ]
        + ["--against", "none:beam1", "--against", "student", "--out", str(folder)]
    )
    return folder


@pytest.fixture(scope="module")
def content(out):
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def rows(content):
    return {(row["model"], row["beam"]): row for row in content["rows"]}


def texts_of(out, row):
    """The output of each seed of a row."""
    return [(out / one["outputs"]["test"]).read_text().splitlines() for one in row["seeds"]]


def test_a_row_has_the_mean_of_its_seeds_and_each(out, rows, text):
    references = (text / "test.tgt").read_text().splitlines()
    for row in rows.values():
        texts = texts_of(out, row)
        assert len(texts) == (2 if row["model"] == "none" else 1)
        bleu = [sacrebleu.corpus_bleu(one, [references]) for one in texts]
        assert row["seed_bleu"] == [one.score for one in bleu]
        assert row["bleu"] == pytest.approx(np.mean(row["seed_bleu"]))
        chrf = [sacrebleu.corpus_chrf(one, [references]).score for one in texts]
        assert row["seed_chrf"] == chrf and row["chrf"] == pytest.approx(np.mean(chrf))
        assert row["brevity_penalty"] == pytest.approx(np.mean([one.bp for one in bleu]))
    assert len(set(rows["none", 1]["seed_bleu"])) == 2


def test_gains_are_means_of_bootstrap_replicates(out, rows, text):
    """Recomputed by sacreBLEU from the outputs, on the same resampled sentences for all."""
    references = (text / "test.tgt").read_text().splitlines()
    ids = np.random.default_rng(SEED).choice(20, size=(RESAMPLES, 20))[:200]

    def replicates(row):
        return np.mean(
            [
                [
                    BLEU()
                    .corpus_score([one[i] for i in sample], [[references[i] for i in sample]])
                    .score
                    for sample in ids
                ]
                for one in texts_of(out, row)
            ],
            axis=0,
        )

    found = {key: replicates(row) for key, row in rows.items()}
    for name, key in (("none:beam1", ("none", 1)), ("student:beam2", ("student", 2))):
        for other, row in rows.items():
            if other == key:
                assert name not in row["gains"]
                continue
            gain = row["gains"][name]
            assert gain["bleu"] == pytest.approx(row["bleu"] - rows[key]["bleu"])
            gains = found[other] - found[key]
            inside = np.mean((gains >= gain["low"]) & (gains <= gain["high"]))
            assert 0.9 < inside <= 1
            low, high = np.quantile(gains, [0.025, 0.975])
            width = high - low + 1e-9
            assert gain["low"] == pytest.approx(low, abs=0.25 * width)
            assert gain["high"] == pytest.approx(high, abs=0.25 * width)


def test_the_first_row_compared_with_is_the_baseline(content, rows):
    assert content["against"] == ["none:beam1", "student:beam2"]
    for row in rows.values():
        assert row["gain"] == row["gains"].get("none:beam1")
    assert rows["none", 1]["gain"] is None


def test_tables(out, rows):
    text = (out / "report.md").read_text()
    head = text.splitlines()[0]
    for title in ("none, greedy", "student, beam 2"):
        assert f"gain over {title} [95 %]" in head
    each = ", ".join(f"{bleu:.2f}" for bleu in rows["none", 2]["seed_bleu"])
    assert f"| {each} " in text or f" {each} |" in text
    assert "several seeds, all numbers are means over them" in text
    with open(out / "report.csv") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        row = rows[line["model"], int(line["beam"])]
        assert line["seed_bleu"].split() == [str(bleu) for bleu in row["seed_bleu"]]
        gain = row["gains"].get("student:beam2", {"low": ""})
        assert line["gains_student:beam2_low"] == str(gain["low"])


def test_models_are_summed_up_once(content, seeds):
    none, student = content["models"]
    assert none["path"] == ",".join(seeds) and none["name"] == "none"
    sizes = [os.path.getsize(seed) for seed in seeds]
    assert none["checkpoint_bytes"] == round(sum(sizes) / 2)
    assert 0 < none["mode_mass"] < 1 and 0 <= none["greedy_equals_beam"] <= 1


def test_the_command_of_a_row_gives_its_numbers(rows, tmp_path):
    command = rows["none", 2]["command"]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    script = f"{command} --rounds 1 --out {tmp_path / 'out'}"
    subprocess.run(["bash", "-c", script], env={**os.environ, "PATH": path}, check=True)
    (row,) = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    assert row["seed_bleu"] == rows["none", 2]["seed_bleu"]


def test_a_seed_alone_gives_the_same(data, text, seeds, rows, tmp_path):
    """And two seeds of equal output have the interval of one."""
    shutil.copy(seeds[0], tmp_path / "copy.pt")
    shutil.copy(data / "dict.src.txt", tmp_path)
    shutil.copy(data / "dict.tgt.txt", tmp_path)
    named = [f"none={seeds[1]}", f"one={seeds[0]}", f"two={seeds[0]},{tmp_path / 'copy.pt'}"]
    where = ["evaluate", str(data), "--ref", str(text / "test.tgt"), *FLAGS]
    cli.main([*where, "--checkpoints", *named, "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    found = {(row["model"], row["beam"]): row for row in found}
    for beam in (1, 2):
        one, two = found["one", beam], found["two", beam]
        assert one["gain"] == pytest.approx(two["gain"])
        pair = [one["bleu"], found["none", beam]["bleu"]]
        assert pair == rows["none", beam]["seed_bleu"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a", "a:beam5"),
        ("a:beam1", "a:beam1"),
        ("b:beam5", "b:beam5"),
        ("c:beam9", "c:beam9:beam5"),
    ],
)
def test_names_of_rows(text, expected):
    assert row_name(text, dict.fromkeys(["a", "b", "c:beam9"], [1, 5])) == expected


@pytest.mark.parametrize("text", ["x", "a:beam2", "b:beam5", "a:5", "a:beam", ""])
def test_rows_that_are_not_there(text):
    with pytest.raises(ValueError, match="--against: found .*, expected NAME or NAME:beamN"):
        row_name(text, {"a": [1, 5], "b": [1]})


def test_paths_of_seeds(tmp_path):
    assert seed_paths("n", "a.pt,b.pt:c.pt") == ["a.pt", "b.pt:c.pt"]
    assert seed_paths("n", "a.pt") == ["a.pt"]
    (tmp_path / "a,b.pt").write_text("")
    assert seed_paths("n", str(tmp_path / "a,b.pt")) == [str(tmp_path / "a,b.pt")]
    assert parse_named_paths(["x/a.pt,x/b.pt"], "--checkpoints") == {"a+b": "x/a.pt,x/b.pt"}


@pytest.mark.parametrize(
    "checkpoints, flags, message",
    [
        ("x={0},{0}", [], "--checkpoints: 'x' has '{0}' twice, expected checkpoints of train"),
        ("x={0},{2}", [], "one model trained with several seeds. Give models of different"),
        ("x={0},no.pt", [], "no checkpoint at 'no.pt'"),
        (
            "x={0}",
            ["--against", "y"],
            "--against: found 'y', expected NAME or NAME:beamN",
        ),
    ],
)
def test_bad_seeds(data, seeds, other_size, refused, checkpoints, flags, message):
    paths = [*seeds, other_size]
    found = refused("evaluate", data, "--checkpoints", checkpoints.format(*paths), *flags)
    assert message.format(*paths) in found


@pytest.fixture(scope="module")
def other_size(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "1"]
    train(data, folder, *loss, "--decoder-layers", "2")
    return folder / "checkpoint_last.pt"
