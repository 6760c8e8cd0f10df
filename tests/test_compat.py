import pickle
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import train
from omegaconf import OmegaConf

from fairseq_seqkd.compat import LOADS_SAFELY

guarded = pytest.mark.skipif(
    not LOADS_SAFELY,
    reason="before torch 2.6 torch.load runs every pickle; nothing can be allow-listed",
)


class RunsCode:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_torch_load_reads_a_fairseq_checkpoint(teacher):
    assert "model" in torch.load(teacher)


@guarded
def test_a_pickle_that_runs_code_is_refused_and_not_executed(tmp_path):
    trace = tmp_path / "was-executed"
    torch.save({"model": {}, "cfg": RunsCode(trace)}, tmp_path / "evil.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "evil.pt")
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        Namespace(arch="transformer", lr=[0.1]),
        {"_bleu_counts": np.array([1, 2, 3, 4]), "ppl": np.float64(7.5)},
        OmegaConf.create({"model": {"arch": "x", "lr": [0.1, None], "cpu": True, "n": 3}}),
    ],
)
def test_what_fairseq_puts_into_checkpoints_is_read(tmp_path, content):
    torch.save({"content": content}, tmp_path / "checkpoint.pt")
    assert str(torch.load(tmp_path / "checkpoint.pt")["content"]) == str(content)


def test_training_with_bleu_can_be_resumed(data, teacher, tmp_path):
    run = ["--task", "translation", "--criterion", "cross_entropy", "--eval-bleu"]
    train(data, tmp_path, *run, "--max-update", "1")
    train(data, tmp_path, *run, "--max-update", "2")
    history = torch.load(tmp_path / "checkpoint_last.pt")["optimizer_history"]
    assert history[-1]["num_updates"] == 2
