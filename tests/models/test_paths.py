"""Shipped files name no folder, no user and no host of the training."""

import copy
import getpass
import os
import platform
import re
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from conftest import CTRANSLATE2, ROOT
from omegaconf import OmegaConf
from processes import fairseq

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.models.checkpoints import load_state, plain_containers
from fairseq_seqkd.models.paths import remove_paths, without_paths

HOST = platform.node()
SECRETS = {
    "common": {"tensorboard_logdir": "logs", "wandb_project": "hers", "user_dir": "/srv/code"},
    "distributed_training": {"distributed_init_method": f"tcp://{HOST}:1234"},
    "checkpoint": {"finetune_from_model": "/srv/big.pt", "save_dir": "runs-of-hers"},
    "task": {"data": "/srv/one:/srv/two"},
}
TELLING = ("/srv/", "hers", "tcp://")


@pytest.fixture(scope="module")
def student(word_kd_student, tmp_path_factory):
    """A checkpoint whose configuration names more folders, a project and a host."""
    state = load_state(str(word_kd_student[0] / "checkpoint_last.pt"))
    for section, settings in SECRETS.items():
        state["cfg"][section].update(settings)
    vars(state["cfg"]["model"]).update(SECRETS["checkpoint"], embed_path=f"/home/{HOST}/e.txt")
    path = tmp_path_factory.mktemp("telling") / "checkpoint_last.pt"
    torch.save(state, path)
    return path


@pytest.fixture
def spm(text, tmp_path):
    """A sentencepiece model, which names the text that it was trained on."""
    sentencepiece = pytest.importorskip("sentencepiece")
    prefix = tmp_path / "spm"
    how = {"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        input=text / "train.src", model_prefix=prefix, **how
    )
    return f"{prefix}.model"


def secrets_in(path):
    """The names of this machine that stand in a file, or in a file of a folder or zip."""
    if os.path.isdir(path):
        return {word for entry in Path(path).rglob("*") for word in secrets_in(entry)}
    contents = [Path(path).read_bytes()]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            contents += [archive.read(name) for name in archive.namelist()]
    here = [os.getcwd(), str(ROOT), f"pytest-of-{getpass.getuser()}", str(Path.home()), HOST]
    words = {word.encode() for word in [*here, *TELLING] if len(word) > 3}
    return {word for word in words for content in contents if word in content}


CONVERTED = pytest.param("ctranslate2", marks=CTRANSLATE2)
WAYS = {
    "fairseq": ["export", "--to", "fairseq", "--out", "out.pt"],
    "sparse": ["export", "--to", "sparse", "--out", "out.safetensors"],
    "ctranslate2": ["export", "--to", "ctranslate2", "--out", "out"],
    "prune": ["prune", "out.pt", "--sparsity", "0.2"],
}


@pytest.mark.parametrize("way", ["fairseq", "sparse", "prune", CONVERTED])
def test_a_shipped_file_names_no_path_and_no_host(
    way, student, data, spm, tmp_path, monkeypatch
):
    assert len(secrets_in(student)) > 3 and secrets_in(spm)
    monkeypatch.chdir(tmp_path)
    name, *flags = WAYS[way]
    more = ["--data", data, "--spm-model", spm] if way == "ctranslate2" else []
    main([name, str(student), *flags, *map(str, more)])
    (out,) = [name for name in os.listdir() if name.startswith("out")]
    assert secrets_in(out) == set()


@pytest.mark.parametrize("way", ["fairseq", "prune"])
def test_stock_fairseq_translates_with_it(way, student, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *flags = WAYS[way]
    main([name, str(student), *flags])
    if way == "prune":  # keeps omegaconf's types, which stock fairseq loads before torch 2.6
        main(["export", "out.pt", "--to", "fairseq", "--out", "again.pt"])
    path = "again.pt" if way == "prune" else "out.pt"
    flags = ["--path", tmp_path / path, "--cpu", "--required-batch-size-multiple", 1]
    output = fairseq("generate", data, *flags)
    assert len(re.findall(r"^H-", output, re.MULTILINE)) == 20


def test_a_sparse_file_made_before_loses_its_paths_as_well(student, tmp_path, monkeypatch):
    monkeypatch.setattr("fairseq_seqkd.export.stock.without_paths", lambda config: config)
    main(["export", str(student), "--to", "sparse", "--out", f"{tmp_path}/old.safetensors"])
    monkeypatch.undo()
    assert secrets_in(tmp_path / "old.safetensors")
    old, out = f"{tmp_path}/old.safetensors", f"{tmp_path}/out.pt"
    main(["export", old, "--to", "fairseq", "--out", out])
    assert secrets_in(out) == set()


SETTINGS = {
    "arch": "transformer",
    "lr": [0.1],
    "eval_bleu_args": '{"beam": 4}',
    "data": "data-bin",
    "save_dir": "runs",
    "embed_path": None,
    "layers": {"codes": "/a/b", "names": ["a", "/b"], "drive": "C:\\x"},
}
LEFT = {
    "arch": "transformer",
    "lr": [0.1],
    "eval_bleu_args": '{"beam": 4}',
    "data": None,
    "save_dir": None,
    "embed_path": None,
    "layers": {"codes": None, "names": ["a"], "drive": None},
}


@pytest.mark.parametrize("container", [dict, OmegaConf.create, lambda d: Namespace(**d)])
def test_configurations_of_every_type(container):
    assert without_paths(SETTINGS) == LEFT
    config = container(copy.deepcopy(SETTINGS))
    remove_paths(config)
    assert plain_containers(config) == LEFT
