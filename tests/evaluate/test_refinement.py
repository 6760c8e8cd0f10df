"""Non-autoregressive students as rows."""

import csv
import json
import re

import pytest
import sacrebleu
from conftest import CTRANSLATE2, USER_DIR, train
from processes import fairseq

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.decoding.refinement_engine import RefinementEngine
from fairseq_seqkd.evaluate.candidates import Candidate

SIZE = [
    *["--encoder-layers", "1", "--decoder-layers", "1", "--encoder-embed-dim", "16"],
    *["--encoder-ffn-embed-dim", "16", "--decoder-embed-dim", "16"],
    *["--decoder-ffn-embed-dim", "16", "--encoder-attention-heads", "2"],
    *["--decoder-attention-heads", "2"],
]


@pytest.fixture(scope="module")
def student(data, tmp_path_factory):
    """The checkpoint of a student that was trained as in fairseq's example."""
    folder = tmp_path_factory.mktemp("nat")
    train(
        *[data, folder, "--task", "translation_lev", "--criterion", "nat_loss"],
        *["--noise", "full_mask", "--max-update", "60", "--lr", "0.02", "--pred-length-offset"],
        *["--encoder-learned-pos", "--decoder-learned-pos", "--length-loss-factor", "0.1"],
        *["--max-source-positions", "40", "--max-target-positions", "60"],
        model=["--arch", "nonautoregressive_transformer", *SIZE],
    )
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module", params=[0, 10])
def iterations(request):
    return request.param


@pytest.fixture(scope="module")
def out(data, text, student, teacher, iterations, tmp_path_factory):
    """A report on it and a model that decodes from left to right."""
    folder = tmp_path_factory.mktemp("report")
    flags = [] if iterations == 10 else ["--iter-decode-max-iter", str(iterations)]
    cli.main(
        ["evaluate", str(data), "--ref", str(text / "test.tgt"), "--engines", "fairseq"]
        + ["--checkpoints", f"teacher={teacher}", f"nat={student}", "--beams", "1", "2"]
        + ["--against", "nat", "--rounds", "1", "--max-len-b", "12", *flags]
        + ["--tune-lenpen", "valid", "--out", str(folder)]
    )
    return folder


def test_a_row_is_what_fairseq_generate_prints(out, data, text, student, iterations):
    output = fairseq(
        *["generate", data, "--path", student, "--user-dir", USER_DIR, "--cpu"],
        *["--task", "translation_lev", "--iter-decode-max-iter", iterations, "--beam", "1"],
        *["--required-batch-size-multiple", "1"],
    )
    found = re.findall(r"^H-(\d+)\t\S+\t(.*)$", output, re.MULTILINE)
    expected = [line for _, line in sorted((int(i), line) for i, line in found)]
    content = json.loads((out / "report.json").read_text())
    (row,) = [row for row in content["rows"] if row["model"] == "nat"]
    assert row["iterations"] == iterations and row["engine"] == "fairseq"
    path = row["seeds"][0]["outputs"]["test"]
    assert f"nat.{iterations}iterations.fairseq.txt" in path
    texts = (out / path).read_text().splitlines()
    assert len(expected) == 20 and texts == expected
    references = (text / "test.tgt").read_text().splitlines()
    assert row["bleu"] == sacrebleu.corpus_bleu(expected, [references]).score


def test_it_has_no_beam_no_length_penalty_and_no_mode_mass(out, iterations):
    content = json.loads((out / "report.json").read_text())
    assert [(row["model"], row["beam"]) for row in content["rows"]] == [
        *[("teacher", 1), ("teacher", 2), ("nat", 1)]
    ]
    assert content["against"] == ["nat:beam1"]
    assert content["models"][1]["mode_mass"] is None
    assert content["models"][1]["greedy_equals_beam"] is None
    nat, teacher = content["rows"][2], content["rows"][1]
    assert (
        nat["seeds"][0]["lenpen_bleu"] == {} and len(teacher["seeds"][0]["lenpen_bleu"]) == 10
    )
    assert teacher["gains"]["nat:beam1"]["bleu"] == teacher["bleu"] - nat["bleu"]
    markdown = (out / "report.md").read_text()
    assert f"| {iterations} iterations " in markdown
    assert f"gain over nat, {iterations} iterations [95 %]" in markdown
    with open(out / "report.csv") as file:
        lines = list(csv.DictReader(file))
    assert [line["iterations"] for line in lines] == ["", "", str(iterations)]


def test_the_command_of_its_row(out, iterations):
    command = json.loads((out / "report.json").read_text())["rows"][2]["command"]
    assert command.startswith("fairseq-generate ") and "--task translation_lev" in command
    assert f"--iter-decode-max-iter {iterations}" in command


@CTRANSLATE2
def test_it_runs_with_fairseq_beside_others(data, student, teacher, capsys):
    cli.main(
        ["evaluate", str(data), "--engines", "ctranslate2:float32", "--devices", "cpu"]
        + ["--checkpoints", f"teacher={teacher}", f"nat={student}", "--beams", "1"]
        + ["--rounds", "1"]
    )
    output = capsys.readouterr().out
    assert "| nat     | fairseq " in output and "| teacher | ctranslate2 float32 " in output
    assert "- nat is non-autoregressive: it was run with fairseq alone." in output


def test_the_longest_source_leaves_room_for_bos(data, student):
    candidate = Candidate.load("nat", str(student), str(data), ["test"])
    assert candidate.max_source_positions == 39
    assert RefinementEngine(candidate.model).max_source_positions == 39


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--iter-decode-max-iter", -1], "--iter-decode-max-iter is -1, expected 0 or more"),
        (["--iter-decode-max-iter", 3], "none of the models is non-autoregressive"),
    ],
)
def test_bad_flags(data, teacher, refused, flags, message):
    assert message in refused("evaluate", data, "--checkpoints", teacher, *flags)
