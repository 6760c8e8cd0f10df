"""Ways to prepare data and checkpoints, each through all commands."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, load_split, make_cache, preprocess, train
from recipes import scores_of

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.models.checkpoints import load_state, read_checkpoint


def run(*arguments):
    """A subcommand of fairseq-seqkd, in this process."""
    cli.main([*map(str, arguments)])


def train_teacher(data, folder, model):
    loss = ["--criterion", "cross_entropy", "--max-update", 10, "--lr", "0.02"]
    train(data, folder, "--max-tokens", 2000, *loss, model=model)
    return folder / "checkpoint_last.pt"


@pytest.fixture
def few(text, tmp_path):
    """A folder with the last 30 sentences of each split of ``text``."""
    folder = tmp_path / "text"
    folder.mkdir()
    for path in Path(text).iterdir():
        lines = path.read_text().splitlines()[-30:]
        (folder / path.name).write_text("".join(line + "\n" for line in lines))
    return folder


def characters(few, tmp_path):
    """Every character is a token, a space is U+2581."""
    for path in few.iterdir():
        lines = path.read_text().splitlines()
        path.write_text("".join(" ".join(line.replace(" ", "▁")) + "\n" for line in lines))
    data = preprocess(few, tmp_path / "data")
    return data, train_teacher(data, tmp_path / "teacher", TINY), TINY, ["sentencepiece"]


def large_vocabulary(few, tmp_path):
    """32,000 symbols for source and target together, most of which occur in no sentence."""
    words = sorted({word for path in few.iterdir() for word in path.read_text().split()})
    words += [f"unused{i}" for i in range(31996 - len(words))]
    (tmp_path / "dict.txt").write_text("".join(f"{word} 1\n" for word in words))
    joined = ["--joined-dictionary", "--srcdict", tmp_path / "dict.txt"]
    data = preprocess(few, tmp_path / "data", *joined)
    model = ["8" if value == "16" else value for value in TINY] + ["--share-all-embeddings"]
    return data, train_teacher(data, tmp_path / "teacher", model), model, []


def averaged(few, tmp_path):
    """Two checkpoints' mean, made as fairseq's scripts/average_checkpoints.py makes it."""
    data = preprocess(few, tmp_path / "data")
    paths = [train_teacher(data, tmp_path / name, TINY) for name in "ab"]
    states = [read_checkpoint(str(path)) for path in paths]
    mean = states[0]
    for name in mean["model"]:
        tensors = [state["model"][name] for state in states]
        mean["model"][name] = torch.stack(tensors).float().mean(0)
    torch.save(mean, tmp_path / "averaged.pt")
    return data, tmp_path / "averaged.pt", TINY, []


@pytest.mark.parametrize("prepare", [characters, large_vocabulary, averaged])
def test_all_commands(few, tmp_path, capsys, prepare):
    data, teacher, model, subwords = prepare(few, tmp_path)
    store, student = tmp_path / "store", tmp_path / "student"
    search = ["--beam", 2, "--accept-unfinished", 1]  # the teacher has learned little
    run("generate", data, "--teacher-path", teacher, "--pseudo-targets", store, *search)
    assert len(load_split(store / "best").dataset) == 30
    cache = make_cache(tmp_path / "cache", data, teacher, "--top-k", 8)
    for loss in (
        ["--criterion", "imit_kd", "--teacher-path", teacher],
        ["--criterion", "word_kd", "--kd-cache", cache],
    ):
        train(data, student, *loss, "--max-update", 3, "--reset-optimizer", model=model)
    checkpoint = student / "checkpoint_last.pt"
    run("export", checkpoint, "--to", "fairseq", "--out", tmp_path / "exported.pt")
    exported, trained = (
        load_state(str(path))["model"] for path in (tmp_path / "exported.pt", checkpoint)
    )
    assert all(torch.equal(exported[name], trained[name]) for name in trained)
    capsys.readouterr()
    joined = ["--remove-bpe", *subwords] if subwords else []
    names = [f"{name}={path}" for name, path in (("teacher", teacher), ("student", checkpoint))]
    quickly = ["--engines", "fairseq", "--rounds", 1, "--beams", 1]
    run("evaluate", data, *joined, *quickly, "--checkpoints", *names)
    table = scores_of(capsys.readouterr().out)
    assert [row[0] for row in table if "greedy" in row] == ["teacher", "student"]
