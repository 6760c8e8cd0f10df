"""Conversions whose translations differ from fairseq's are refused."""

import json
import os
import shutil

import pytest
import torch

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.export import ctranslate2 as exporting

pytest.importorskip("ctranslate2")


@pytest.fixture
def export(teacher, tmp_path, capsys):
    """export(*flags, status): the output of the export to ``out``."""

    def export(*flags, status=0, student=teacher):
        command = ["export", student, "--to", "ctranslate2", "--out", tmp_path / "out", *flags]
        try:
            main([*map(str, command)])
        except SystemExit as error:
            assert error.code == status
            assert not [name for name in os.listdir(tmp_path) if "out" in name]
            return capsys.readouterr().err
        assert status == 0
        return capsys.readouterr().out

    return export


@pytest.fixture
def wrong_when(monkeypatch):
    """wrong_when(quantization): conversions to it convert other weights."""
    convert, generator = exporting.convert_model, torch.Generator().manual_seed(1)

    def wrong_when(wrong):
        def convert_wrongly(weights, config, task, folder, quantization=None):
            if quantization == wrong:
                weights = {
                    name: tensor + torch.randn(tensor.shape, generator=generator)
                    for name, tensor in weights.items()
                }
            convert(weights, config, task, folder, quantization)

        monkeypatch.setattr(exporting, "convert_model", convert_wrongly)

    return wrong_when


def recorded(tmp_path):
    return json.loads((tmp_path / "out" / "export.json").read_text())["check"]


def test_the_recorded_data_is_translated_by_both(export, data, tmp_path):
    found = export()
    assert f"checked on {data} (valid): " in found and "translations equal fairseq's" in found
    outcome = recorded(tmp_path)
    assert outcome["sentences"] == 24 >= outcome["equal"] >= 22 and outcome["bleu"] is None


@pytest.mark.parametrize("split, sentences", [("test", 20), ("train", 158)])
def test_other_data(export, data, tmp_path, split, sentences):
    assert f"({split}): " in export("--check", f"{data}:{split}", "--quantization", "int8")
    outcome = recorded(tmp_path)
    assert outcome["sentences"] == sentences and outcome["bleu"] >= 60


def test_a_conversion_that_differs_is_refused(export, wrong_when, tmp_path):
    wrong_when(None)
    message = export(status=1)
    assert "converted to CTranslate2, the model translates otherwise" in message
    assert "expected 90 %" in message and "--no-check exports this one as it is" in message
    assert "not checked: --no-check" in export("--no-check")
    assert recorded(tmp_path) is None


def test_a_quantised_model_is_compared_with_float32(export, wrong_when):
    wrong_when("int8")
    message = export("--quantization", "int8", status=1)
    assert "quantised, the model translates otherwise" in message and "BLEU 60" in message
    assert "equal fairseq's" in export("--quantization", "float32")


def test_without_its_data_it_is_not_checked(export, teacher, data, tmp_path):
    (tmp_path / "dictionaries").mkdir()
    for name in ("dict.src.txt", "dict.tgt.txt"):
        shutil.copy(data / name, tmp_path / "dictionaries")
    main(["export", str(teacher), "--to", "fairseq", "--out", str(tmp_path / "student.pt")])
    student = tmp_path / "student.pt"
    with pytest.raises(SystemExit):  # nothing says which languages
        main(["export", str(student), "--to", "ctranslate2", "--out", str(tmp_path / "x")])
    for name in os.listdir(data):
        if name.startswith("test"):
            shutil.copy(data / name, tmp_path / "dictionaries")
    found = export("--data", tmp_path / "dictionaries", student=student)
    assert "not checked: " in found and "'valid'" in found
    assert recorded(tmp_path) is None


class TestErrors:
    def test_no_such_split(self, export, data):
        assert "no binarised 'nope' split" in export("--check", f"{data}:nope", status=2)

    def test_data_with_other_dictionaries(self, export, data, tmp_path):
        shutil.copytree(data, tmp_path / "other")
        with open(tmp_path / "other" / "dict.tgt.txt", "a") as file:
            file.write("more 1\n")
        message = export("--check", tmp_path / "other", status=2)
        assert "other' has another target dictionary than the student" in message

    def test_both_flags(self, export, data):
        assert "not allowed with" in export("--check", data, "--no-check", status=2)

    def test_for_another_format(self, teacher, tmp_path, refused):
        out = ["--to", "fairseq", "--out", tmp_path / "o.pt", "--no-check"]
        assert "--no-check is for --to ctranslate2" in refused("export", teacher, *out)
