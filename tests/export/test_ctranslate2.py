"""Students exported for CTranslate2, used where this package and fairseq cannot be imported."""

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import LSTM, USER_DIR, train
from processes import fairseq

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.export.ctranslate2 import QUANTIZATIONS
from fairseq_seqkd.models.ctranslate2 import convert_teacher
from fairseq_seqkd.teacher import load_teacher

ctranslate2 = pytest.importorskip("ctranslate2")
ALONE = """
import sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("fairseq_seqkd", "fairseq", "torch"):
            raise ImportError(name + " is not to be imported here")
sys.meta_path.insert(0, Refuses())
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def export(*arguments):
    main(["export", *map(str, arguments)])


def translate(folder, sentences):
    """The output of the folder's translate.py, without this package, fairseq and torch."""
    result = subprocess.run(
        [sys.executable, "-c", ALONE, folder / "translate.py"],
        input="".join(f"{sentence}\n" for sentence in sentences),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder.parent,
    )
    return result.stdout.splitlines()


def greedy(data, checkpoint, *flags):
    """{line: translation} by fairseq-generate, in the order of the split."""
    output = fairseq(
        *["generate", data, "--path", checkpoint, "--cpu", "--beam", 1],
        *["--required-batch-size-multiple", 1, *flags],
    )
    found = re.findall(r"^H-(\d+)\t\S+\t(.*)$", output, re.MULTILINE)
    return [text for _, text in sorted((int(i), text) for i, text in found)]


METHODS = {
    "word_kd": ["--task", "translation", "--criterion", "word_kd"],
    "imit_kd": ["--task", "translation", "--criterion", "imit_kd", "--kd-max-len-b", 10],
    "pruned": [
        *["--task", "translation_seqkd", "--criterion", "word_kd", "--prune-sparsity", "0.5"],
        *["--prune-start-update", "20"],
    ],
}


@pytest.fixture(scope="module", params=METHODS)
def student(request, data, teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    flags = [*METHODS[request.param], "--teacher-path", teacher, "--lr", "0.02"]
    train(data, folder, *flags, "--max-update", "30")
    return folder / "checkpoint_last.pt"


def test_translates_as_the_student_did_in_training(student, data, text, tmp_path):
    """By CTranslate2 and by stock fairseq, neither of which has this package."""
    export(student, "--to", "ctranslate2", "--out", tmp_path / "ct2", "--data", data)
    export(student, "--to", "fairseq", "--out", tmp_path / "stock.pt")
    ours = ["--user-dir", USER_DIR, "--task", "translation", "--criterion", "word_kd"]
    expected = greedy(data, student, *ours, "--teacher-path", "none")
    sources = (text / "test.src").read_text().splitlines()
    assert len(expected) == len(sources) == 20 and len(set(expected)) > 1
    for found in (
        translate(tmp_path / "ct2", sources),
        greedy(data, tmp_path / "stock.pt"),
    ):
        assert len(found) == 20
        assert sum(a == b for a, b in zip(found, expected)) >= 0.99 * 20


def test_what_is_in_the_folder(teacher, data, tmp_path, capsys):
    export(teacher, "--to", "ctranslate2", "--out", tmp_path / "ct2", "--data", data)
    assert f"python {tmp_path}/ct2/translate.py < sentences" in capsys.readouterr().out
    names = set(os.listdir(tmp_path / "ct2"))
    assert {"model.bin", "config.json", "translate.py"} <= names
    for side in ("src", "tgt"):
        exported = (tmp_path / "ct2" / f"dict.{side}.txt").read_text()
        assert exported == (data / f"dict.{side}.txt").read_text()
    assert json.loads((tmp_path / "ct2" / "config.json").read_text())["add_source_eos"]
    assert os.listdir(tmp_path) == ["ct2"]


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_quantised(teacher, data, text, tmp_path, quantization):
    flags = ["--data", data, "--quantization", quantization]
    export(teacher, "--to", "ctranslate2", "--out", tmp_path / "ct2", *flags)
    export(teacher, "--to", "ctranslate2", "--out", tmp_path / "plain", "--data", data)
    size, plain = ((tmp_path / name / "model.bin").stat().st_size for name in ("ct2", "plain"))
    assert size == plain if quantization == "float32" else size < 0.7 * plain
    sources = (text / "test.src").read_text().splitlines()
    assert len(translate(tmp_path / "ct2", sources)) == 20


def test_from_a_sparse_file_it_is_the_same(teacher, data, tmp_path):
    export(teacher, "--to", "sparse", "--out", tmp_path / "t.safetensors")
    for name, path in (("a", teacher), ("b", tmp_path / "t.safetensors")):
        export(path, "--to", "ctranslate2", "--out", tmp_path / name, "--data", data)
    models = [(tmp_path / name / "model.bin").read_bytes() for name in "ab"]
    assert models[0] == models[1]


def test_with_a_sentencepiece_model(teacher, data, tmp_path):
    """Text in, text out: the pieces are the made-up corpus's words."""
    sentencepiece = pytest.importorskip("sentencepiece")
    words = [line.split()[0] for line in (data / "dict.src.txt").read_text().splitlines()]
    (tmp_path / "words").write_text("\n".join(" ".join(words[i:]) for i in range(40)))
    sentencepiece.SentencePieceTrainer.train(
        input=tmp_path / "words",
        model_prefix=tmp_path / "spm",
        model_type="word",
        vocab_size=len(words) + 3,
        hard_vocab_limit=False,
    )
    flags = ["--data", data, "--spm-model", tmp_path / "spm.model"]
    export(teacher, "--to", "ctranslate2", "--out", tmp_path / "ct2", *flags)
    found = translate(tmp_path / "ct2", [" ".join(words[:5]), words[7]])
    assert len(found) == 2 and all(found) and "▁" not in "".join(found)


class TestShortlist:
    def test_it_is_exported_checked_and_used(self, teacher, data, text, tmp_path, capsys):
        flags = ["--data", data, "--quantization", "int8", "--shortlist", data]
        export(teacher, "--to", "ctranslate2", "--out", tmp_path / "a", *flags)
        found = capsys.readouterr().out
        assert f"counted from 160 pairs: {data}" in found
        assert "; with its shortlist, BLEU " in found
        check = json.loads((tmp_path / "a" / "export.json").read_text())["check"]
        assert 60 <= check["shortlist_bleu"] <= 100
        sources = (text / "test.src").read_text().splitlines()
        expected = translate(tmp_path / "a", sources)
        # Nothing but the words that every source has stays.
        lines = (tmp_path / "a" / "vmap.txt").read_text().splitlines()
        words = lines[0].split()[:2]
        (tmp_path / "a" / "vmap.txt").write_text("\t" + " ".join(words) + "\n")
        found = translate(tmp_path / "a", sources)
        assert len(found) == len(expected) == 20 and found != expected
        assert {word for line in found for word in line.split()} <= {*words, "<unk>"}

    def test_of_a_store_or_finished(self, teacher, data, store, tmp_path):
        """The map of a folder is exported again as it is."""
        out = ["--to", "ctranslate2", "--data", data, "--no-check", "--out"]
        size = ["--shortlist-size", 4]
        export(teacher, *out, tmp_path / "a", "--shortlist", store, *size)
        export(teacher, *out, tmp_path / "b", "--shortlist", tmp_path / "a")
        maps = [(tmp_path / name / "vmap.txt").read_text() for name in "ab"]
        assert (
            maps[0] == maps[1] and max(map(len, map(str.split, maps[0].splitlines()[1:]))) <= 6
        )

    def test_one_that_changes_the_translations(self, teacher, data, tmp_path, capsys):
        (tmp_path / "vmap.txt").write_text("\t\n")
        flags = ["--data", data, "--shortlist", tmp_path / "vmap.txt"]
        with pytest.raises(SystemExit, match="1"):
            export(teacher, "--to", "ctranslate2", "--out", tmp_path / "out", *flags)
        message = capsys.readouterr().err
        assert "with its shortlist, the model translates otherwise: " in message
        assert "--shortlist-size" in message and os.listdir(tmp_path) == ["vmap.txt"]


class TestErrors:
    @pytest.fixture
    def fails(self, teacher, data, tmp_path, capsys):
        def fails(*flags, student=teacher, out=tmp_path / "out"):
            with pytest.raises(SystemExit, match="2"):
                export(student, "--to", "ctranslate2", "--out", out, *flags)
            assert not [name for name in os.listdir(tmp_path) if "out" in name and out != name]
            (line,) = capsys.readouterr().err.splitlines()[-1:]
            return line

        return fails

    def test_an_architecture_that_cannot_be_converted(self, fails, data, tmp_path):
        loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "1"]
        train(data, tmp_path / "lstm", *loss, model=LSTM)
        message = fails(student=tmp_path / "lstm" / "checkpoint_last.pt")
        assert "--to ctranslate2: it cannot convert the model: " in message
        assert "Model 'lstm'" in message and "(--to fairseq exports any model)" in message

    def test_names(self, fails, tmp_path):
        assert "expected the name of a new folder" in fails(out=tmp_path / "student.pt")
        (tmp_path / "there").mkdir()
        assert "is there already: name a new folder" in fails(out=tmp_path / "there")

    def test_no_dictionary(self, fails, tmp_path):
        (tmp_path / "empty").mkdir()
        message = fails("--data", tmp_path / "empty")
        assert "the dictionary of" in message and "name their folder with --data." in message

    def test_no_sentencepiece_model(self, fails):
        assert "--spm-model: there is no file 'no.model'" in fails("--spm-model", "no.model")

    def test_shortlists(self, fails, data, tmp_path):
        (tmp_path / "vmap.txt").write_text("other\tsymbols\n")
        message = fails("--data", data, "--shortlist", tmp_path / "vmap.txt")
        assert "map of another vocabulary: it has the source symbol 'other'" in message
        assert "--shortlist-size needs --shortlist" in fails("--shortlist-size", 5)
        message = fails("--shortlist", data, "--shortlist-size", 0)
        assert "--shortlist-size is 0, expected 1 or more" in message

    def test_flags_of_another_format(self, teacher, tmp_path, capsys):
        flags = ["--to", "fairseq", "--quantization", "int8", "--out", tmp_path / "o.pt"]
        with pytest.raises(SystemExit, match="2"):
            export(teacher, *flags)
        message = "--quantization is for --to ctranslate2, found --to fairseq"
        assert message in capsys.readouterr().err


def test_text_of_any_length(teacher, data, text, tmp_path):
    """The teacher takes 30 tokens: longer sources are cut, and nothing stops."""
    export(teacher, "--to", "ctranslate2", "--out", tmp_path / "ct2", "--data", data)
    line = (text / "test.src").read_text().splitlines()[0]
    found = translate(tmp_path / "ct2", [" ".join([line] * 40), "", line])
    assert len(found) == 3 and found[2] == translate(tmp_path / "ct2", [line])[0]


def test_an_exported_checkpoint_is_converted_again(teacher, data, tmp_path):
    export(teacher, "--to", "fairseq", "--out", tmp_path / "stock.pt")
    for name, path in (("a", teacher), ("b", tmp_path / "stock.pt")):
        loaded = load_teacher(str(path), str(data))
        convert_teacher(loaded, str(tmp_path / name))
    models = [(tmp_path / name / "model" / "model.bin").read_bytes() for name in "ab"]
    assert models[0] == models[1]
