import re

import pytest
import sacrebleu
import torch
from conftest import USER_DIR
from processes import fairseq

from fairseq_seqkd.evaluate.measure import evaluate
from fairseq_seqkd.evaluate.table import markdown


@pytest.fixture(scope="module")
def rows(data, teacher, word_kd_student):
    checkpoints = {
        "teacher": str(teacher),
        "student": str(word_kd_student[0] / "checkpoint_last.pt"),
    }
    return evaluate(checkpoints, str(data), "test", [1, 3], None, None, 2)


@pytest.mark.parametrize("beam", [1, 3])
def test_bleu_is_that_of_fairseq_generate_and_sacrebleu(rows, data, teacher, beam):
    output = fairseq(
        *["generate", data, "--path", teacher, "--user-dir", USER_DIR, "--cpu"],
        *["--beam", beam, "--required-batch-size-multiple", "1"],
    )
    texts, references = (
        [
            text
            for _, text in sorted(
                (int(i), text)
                for i, text in re.findall(rf"^{key}-(\d+)\t(.*)$", output, re.MULTILINE)
            )
        ]
        for key in ("H", "T")
    )
    texts = [text.split("\t")[1] for text in texts]
    assert len(texts) == len(references) == 20
    (row,) = (r for r in rows if r.name == "teacher" and r.beam == beam)
    expected = sacrebleu.corpus_bleu(texts, [references]).score
    assert row.bleu == pytest.approx(expected, abs=0.005)
    assert row.signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_every_line_is_counted_and_every_round_timed(rows):
    assert len(rows) == 4
    for row in rows:
        assert row.sentences == 20
        assert len(row.seconds) == 2
        assert row.sentences_per_second == pytest.approx(40 / sum(row.seconds), rel=1)


def test_parameters_are_counted_once(rows, teacher):
    weights = {
        tensor.data_ptr(): tensor  # the shared embedding stands there twice
        for name, tensor in torch.load(teacher)["model"].items()
        if name.endswith(("weight", "bias"))
    }
    assert rows[0].parameters == sum(tensor.numel() for tensor in weights.values())
    assert rows[0].nonzero == sum(int((tensor != 0).sum()) for tensor in weights.values())
    assert rows[0].nonzero < rows[0].parameters  # the padding symbol's embedding


def test_reference_file(data, teacher, text):
    gold = evaluate({"t": str(teacher)}, str(data), "test", [1], None, None, 1)
    raw = evaluate({"t": str(teacher)}, str(data), "test", [1], None, text / "test.tgt", 1)
    assert gold[0].bleu > 0
    assert raw[0].bleu == pytest.approx(gold[0].bleu, rel=0.2)


def test_reference_file_with_another_line_count(data, teacher, text):
    with pytest.raises(ValueError, match="valid.tgt' has 24 lines, expected the 20 of 'test'"):
        evaluate({"t": str(teacher)}, str(data), "test", [1], None, text / "valid.tgt", 1)


def test_table_compares_with_the_first_models_largest_beam(rows):
    lines = markdown(rows).splitlines()
    assert lines[0].split("|")[1].strip() == "model"
    teacher_beam = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert teacher_beam[0] == "teacher" and teacher_beam[4] == "beam 3"
    assert teacher_beam[3] == "1.0" and teacher_beam[7] == "1.0"
    assert "all 20 lines" in lines[-1] and "tok:13a" in lines[-1]
