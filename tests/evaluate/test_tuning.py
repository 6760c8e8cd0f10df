"""The length penalty: given, or tuned on a validation set."""

import itertools
import json
import re

import pytest
import sacrebleu
import torch
from conftest import CTRANSLATE2, USER_DIR
from processes import fairseq

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.evaluate.measure import evaluate
from fairseq_seqkd.evaluate.settings import Settings
from fairseq_seqkd.evaluate.table import decoding_rows, explain_columns
from fairseq_seqkd.evaluate.tuning import GRID, best_length_penalty, fastest

QUICK = {"engines": ["fairseq"], "rounds": 1, "max_len_b": 12}
SHORT = ["--max-len-b", 12]  # models that are hardly trained do not end


def generate(data, checkpoint, split, *search):
    """The texts of fairseq-generate, in the order of the split."""
    output = fairseq(
        *["generate", data, "--path", checkpoint, "--user-dir", USER_DIR, "--cpu"],
        *["--gen-subset", split, "--required-batch-size-multiple", "1", *search],
    )
    found = re.findall(r"^H-(\d+)\t\S+\t(.*)$", output, re.MULTILINE)
    return [line for _, line in sorted((int(i), line) for i, line in found)]


@pytest.fixture(scope="module")
def tuned(data, text, checkpoints):
    reference = [str(text / "test.tgt")]
    settings = Settings(
        *[str(data)], beams=(1, 3), tune_lenpen="valid", reference_files=reference, **QUICK
    )
    return evaluate(checkpoints, settings)[0]


def test_the_grid():
    assert GRID == (0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.4)


def test_every_model_has_its_best_penalty(tuned):
    for row in tuned.rows:
        (seed,) = row.seeds
        bleu = {float(value): score for value, score in seed.lenpen_bleu.items()}
        if row.beam == 1:
            assert seed.lenpen == 1 and not bleu
        else:
            assert tuple(bleu) == GRID
            best = max(bleu.values())
            assert seed.lenpen == min(value for value in GRID if bleu[value] == best)


@pytest.mark.parametrize("lenpen", [0.6, 2.4])
def test_the_bleu_of_a_penalty_is_that_of_fairseq_generate(tuned, data, checkpoints, lenpen):
    (row,) = [row for row in tuned.rows if row.model == "student" and row.beam == 3]
    texts = generate(
        data, checkpoints["student"], "valid", "--beam", 3, "--lenpen", lenpen, *SHORT
    )
    output = fairseq(
        *["generate", data, "--path", checkpoints["student"], "--user-dir", USER_DIR, "--cpu"],
        *["--gen-subset", "valid", "--beam", 1, *SHORT, "--required-batch-size-multiple", "1"],
    )
    gold = re.findall(r"^T-(\d+)\t(.*)$", output, re.MULTILINE)
    references = [line for _, line in sorted((int(i), line) for i, line in gold)]
    references = [line.replace("<<unk>>", "UNKNOWNTOKENINREF") for line in references]
    expected = sacrebleu.corpus_bleu(texts, [references]).score
    assert row.seeds[0].lenpen_bleu[str(lenpen)] == pytest.approx(expected, abs=0.01)


def test_the_tables_say_so(tuned):
    assert "on valid, among 0.6, 0.8 ... 2.4" in explain_columns(tuned)
    for row, cells in zip(tuned.rows, decoding_rows(tuned)):
        if row.beam == 1:
            assert cells.get("length penalty", "") == ""
        elif "length penalty" in cells:
            assert float(cells["length penalty"]) == row.seeds[0].lenpen


def test_the_command_of_a_row_has_the_penalty(tuned):
    for row in tuned.rows:
        lenpen = row.seeds[0].lenpen
        assert (f"--lenpen {lenpen}" in row.command) == (lenpen != 1)


def test_a_given_penalty_is_fairseqs(data, text, checkpoints):
    reference = [str(text / "test.tgt")]
    found = {}
    for lenpen in (-2.0, 3.0):
        settings = Settings(
            *[str(data)],
            beams=(3,),
            reference_files=reference,
            lenpen=lenpen,
            **QUICK,
        )
        (row,) = evaluate({"t": checkpoints["teacher"]}, settings)[0].rows
        how = ["--beam", 3, *SHORT, "--lenpen", lenpen]
        texts = generate(data, checkpoints["teacher"], "test", *how)
        lines = (text / "test.tgt").read_text().splitlines()
        assert row.bleu == pytest.approx(sacrebleu.corpus_bleu(texts, [lines]).score, abs=0.01)
        assert f"--lenpen {lenpen} --max-len-b 12" in row.command
        found[lenpen] = row.length_ratio
    assert found[-2.0] < found[3.0]


def test_ties_go_to_the_smaller():
    assert best_length_penalty({1.0: 30.0, 0.8: 30.0, 1.2: 29.0}) == 0.8


def test_the_fastest_engine():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    engines = ("fairseq", "ctranslate2:int8", "ctranslate2:float32")
    assert fastest({(cpu, engine): None for engine in engines}) == (cpu, engines[1])
    both = {key: None for key in itertools.product((cpu, cuda), engines)}
    assert fastest(both) == (cuda, engines[1])
    assert fastest({(cpu, "fairseq"): None}) == (cpu, "fairseq")


@CTRANSLATE2
def test_another_engine_tunes_for_all(data, checkpoints, tmp_path, capsys):
    engines = ["fairseq", "ctranslate2:float32"]
    cli.main(
        ["evaluate", str(data), "--checkpoints", f"t={checkpoints['teacher']}"]
        + ["--engines", *engines, "--beams", "2", "--rounds", "1", "--devices", "cpu"]
        + ["--max-len-b", "12", "--tune-lenpen", "valid", "--out", str(tmp_path)]
    )
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [row["engine"] for row in rows] == engines
    seeds = [row["seeds"][0] for row in rows]
    for key in ("lenpen", "lenpen_bleu"):
        assert seeds[0][key] == seeds[1][key]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--tune-lenpen", "valid", "--beams", 1], "--tune-lenpen has no effect on greedy dec"),
        (
            ["--lenpen", 1.2, "--beams", 1],
            "--lenpen has no effect on greedy decoding: expected",
        ),
        (["--tune-lenpen", "test"], "--tune-lenpen is 'test', which --split translates"),
        (["--tune-lenpen", "tast"], "no binarised 'tast' split"),
        (["--lenpen", "nan"], "--lenpen is nan, expected a number"),
        (["--lenpen", 1, "--tune-lenpen", "valid"], "not allowed with argument"),
        (["--max-len-b", 0], "max-len-b"),
    ],
)
def test_bad_flags(data, teacher, refused, capsys, flags, message):
    where = [data, "--checkpoints", teacher, "--engines", "fairseq"]
    assert message in refused("evaluate", *where, *flags)
