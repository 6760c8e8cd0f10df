"""Reading and writing checkpoint files."""

from argparse import Namespace

import pytest
import torch
from omegaconf import OmegaConf
from test_compat import RunsCode, guarded

from fairseq_seqkd.io.files import sha256
from fairseq_seqkd.models.checkpoints import (
    config_of,
    load_state,
    plain_containers,
    read_checkpoint,
    sha256_of_checkpoints,
    write_checkpoint,
)
from fairseq_seqkd.models.loading import load_models

LOADERS = pytest.mark.parametrize("load", [load_models, load_state, read_checkpoint])


@pytest.mark.parametrize("missing", ["no/such.pt", "no/such.pt:no/other.pt"])
def test_missing_checkpoint(missing):
    with pytest.raises(FileNotFoundError, match="no checkpoint at 'no/such.pt'"):
        load_models(missing)


@LOADERS
@pytest.mark.parametrize("content", [b"", b"just text\n", b"\x80\x02}q\x00."])
def test_not_a_checkpoint(tmp_path, load, content):
    (tmp_path / "teacher.pt").write_bytes(content)
    with pytest.raises(ValueError, match="teacher.pt'.*fairseq checkpoint"):
        load(str(tmp_path / "teacher.pt"))


@LOADERS
def test_checkpoint_of_something_else(tmp_path, load):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="other.pt.*not a fairseq checkpoint"):
        load(str(tmp_path / "other.pt"))


@LOADERS
@pytest.mark.parametrize("named", ["model.pt", "model-shard0.pt"])
def test_a_shard_of_a_model(teacher, tmp_path, load, named):
    """As --use-sharded-state writes them: flat parameters, and how they were cut."""
    state = read_checkpoint(str(teacher))
    flat = {"flat_param_0": torch.cat([t.flatten() for t in state["model"].values()])}
    torch.save({**state, "model": flat, "fsdp_metadata": {}}, tmp_path / "model-shard0.pt")
    if load is not load_models and named == "model.pt":
        pytest.skip("commands name checkpoints to load_models")
    with pytest.raises(ValueError, match="model-shard0.pt' is one shard of a model.*Expected"):
        load(str(tmp_path / named))


@LOADERS
@guarded
def test_malicious_checkpoint_is_refused_and_not_executed(tmp_path, load):
    trace = tmp_path / "was-executed"
    torch.save({"model": {}, "cfg": RunsCode(trace)}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="evil.pt.*refused and nothing in it was executed"):
        load(str(tmp_path / "evil.pt"))
    assert not trace.exists()


def test_checkpoint_without_a_configuration(teacher):
    state = {"model": load_state(str(teacher))["model"], "cfg": None, "args": None}
    with pytest.raises(ValueError, match="x.pt.*no configuration of a model and its task"):
        config_of(state, "x.pt")


def test_sha256_of_an_ensembles_checkpoints(teacher):
    assert sha256_of_checkpoints(f"{teacher}:{teacher}") == [sha256(str(teacher))] * 2


def test_a_written_checkpoint_is_read_as_it_was(teacher, tmp_path):
    state = read_checkpoint(str(teacher))
    write_checkpoint(state, str(tmp_path / "copy.pt"))
    copy = read_checkpoint(str(tmp_path / "copy.pt"))
    assert copy.keys() == state.keys()
    assert all(torch.equal(copy["model"][name], t) for name, t in state["model"].items())


def test_plain_containers():
    config = OmegaConf.create({"lr": [0.1], "model": {"arch": "lstm"}})
    value = Namespace(config=config, sizes=(1, 2), name="x")
    expected = {"lr": [0.1], "model": {"arch": "lstm"}}
    assert plain_containers(value) == {"config": expected, "sizes": [1, 2], "name": "x"}
