"""CTranslate2's translations of the first chunk are compared with fairseq's, once."""

import pytest
from conftest import files

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.models.ctranslate2 import convert_teacher
from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.pseudo.store import PseudoTargetStore
from fairseq_seqkd.teacher import load_teacher

pytest.importorskip("ctranslate2")


@pytest.fixture
def run(data, teacher, tmp_path, monkeypatch):
    """run(name, *flags): fills a store of small chunks; returns it."""
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 40)

    def run(name, *flags):
        root = str(tmp_path / name)
        where = ["--teacher-path", teacher, "--pseudo-targets", root, "--threads", "1"]
        engine = [] if "--engine" in flags else ["--engine", "ctranslate2"]
        unfinished = ["--accept-unfinished", 1]
        main([*map(str, ["generate", data, *where, *engine, *unfinished, *flags])])
        return PseudoTargetStore(root)

    return run


SAYS = "translations equal fairseq's"


def test_the_first_chunk_is_compared_and_results_stay_the_same(run, tmp_path, capsys):
    outcome = read_json(run("checked").path("check.json"))
    assert 20 < outcome["sentences"] <= 40 and outcome["bleu"] is None
    assert outcome["sentences"] - outcome["equal"] <= max(2, outcome["sentences"] / 10)
    assert capsys.readouterr().err.count(SAYS) == 1
    run("unchecked", "--no-check")
    assert SAYS not in capsys.readouterr().err
    checked, unchecked = files(tmp_path / "checked"), files(tmp_path / "unchecked")
    assert checked.pop("check.json") and checked == unchecked


def test_a_run_that_goes_on_does_not_compare_again(run, capsys):
    store = run("store", "--num-shards", "2", "--shard-id", "1")
    assert SAYS not in capsys.readouterr().err  # the first chunk is another's
    run("store", "--num-shards", "2", "--shard-id", "0")
    assert capsys.readouterr().err.count(SAYS) == 1
    with open(store.chunks.find()[0], "ab") as file:
        file.write(b"damaged")
    run("store")
    messages = capsys.readouterr().err
    assert "was damaged" in messages and SAYS not in messages


def test_int8_is_compared_with_float32(run):
    assert read_json(run("store", "--compute-type", "int8").path("check.json"))["bleu"] >= 60


@pytest.fixture
def other(word_kd_student, data, teacher, tmp_path):
    """other(name): the store of that name finds another model in place of the converted."""

    def convert(name):
        store = PseudoTargetStore(str(tmp_path / name))
        folder = store.converted(Recipe(str(teacher)).teacher_sha256())
        model = load_teacher(str(word_kd_student[0] / "checkpoint_last.pt"), str(data))
        convert_teacher(model, folder)
        return store

    return convert


def test_a_teacher_that_translates_otherwise_is_refused(run, other, capsys):
    store = other("store")
    with pytest.raises(SystemExit, match="1"):
        run("store")
    message = capsys.readouterr().err.splitlines()[-1]
    assert "converted to CTranslate2, the model translates otherwise: " in message
    assert "--engine fairseq --overwrite" in message and "--no-check" in message
    assert not store.chunks.find() and not store.is_checked
    run("store", "--no-check")
    assert store.chunks.find()
    run("store", "--engine", "fairseq", "--overwrite")
    assert store.manifest["engine"]["name"] == "fairseq"


def test_the_other_processes_leave_the_first_chunk_alone(run, other):
    store = other("store")
    run("store", "--num-shards", "2", "--shard-id", "1")
    assert sorted(store.chunks.find()) == [1, 3]
    with pytest.raises(SystemExit, match="1"):
        run("store", "--num-shards", "2", "--shard-id", "0")
    assert sorted(store.chunks.find()) == [1, 3]
