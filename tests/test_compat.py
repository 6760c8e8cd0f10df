import copy
import pickle
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import train
from fairseq.data import TokenBlockDataset
from fairseq.tasks import FairseqTask, LegacyFairseqTask
from fairseq.tasks.audio_pretraining import AudioPretrainingConfig
from fairseq.tasks.language_modeling import LanguageModelingConfig
from fairseq.tasks.translation import TranslationConfig
from omegaconf import OmegaConf

from fairseq_seqkd.compat import LOADS_SAFELY, check_numpy
from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.databin import Split
from fairseq_seqkd.tasks.translation_seqkd import TranslationSeqKDConfig, TranslationSeqKDTask

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


@guarded
@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_arrays_of_another_numpy_are_read(tmp_path, module):
    """numpy 2 names its functions otherwise than numpy 1 does."""
    content = {"_bleu_counts": np.array([1, 2]), "ppl": np.float64(7.5)}
    here = f"c{np.zeros(1).__reduce__()[0].__module__}\n".encode()
    torch.save(content, tmp_path / "ours.pt")
    with zipfile.ZipFile(tmp_path / "ours.pt") as ours:
        with zipfile.ZipFile(tmp_path / "theirs.pt", "w") as theirs:
            for name in ours.namelist():
                theirs.writestr(name, ours.read(name).replace(here, f"c{module}\n".encode()))
    assert str(torch.load(tmp_path / "theirs.pt")) == str(content)


@pytest.fixture
def numpy_2(monkeypatch):
    """numpy without what numpy 2 removed, if it is numpy 1."""
    monkeypatch.delattr(np, "compat", raising=False)


BUCKETS = TranslationConfig(num_batch_buckets=4)
SENTENCES = LanguageModelingConfig(sample_break_mode="eos")


class TestOptionsThatNumpy2CannotDo:
    @pytest.mark.parametrize("task_type", [FairseqTask, LegacyFairseqTask])
    def test_refused(self, numpy_2, task_type):
        with pytest.raises(ValueError, match="--sample-break-mode eos of the task .*==1.26.4"):
            check_numpy(task_type(SENTENCES))

    def test_fairseq_itself_fails(self, numpy_2):
        with pytest.raises(AttributeError, match="compat"):
            TokenBlockDataset([torch.tensor([5, 2])], [2], 0, pad=1, eos=2, break_mode="eos")

    @pytest.mark.parametrize(
        "config",
        [
            *(TranslationConfig(), LanguageModelingConfig(), None),
            LanguageModelingConfig(sample_break_mode="complete"),
            AudioPretrainingConfig(num_batch_buckets=4),
        ],
    )
    def test_others_are_not_refused(self, numpy_2, config):
        check_numpy(FairseqTask(config))

    @pytest.mark.skipif(not hasattr(np, "compat"), reason="numpy 1 is needed")
    @pytest.mark.parametrize("config", [BUCKETS, SENTENCES])
    def test_not_refused_with_numpy_1(self, config):
        check_numpy(FairseqTask(config))

    def test_by_a_criterion(self, numpy_2, task):
        task = copy.copy(task)
        task.cfg = BUCKETS
        with pytest.raises(ValueError, match="--num-batch-buckets of the task TranslationTask"):
            DistillCriterion(task, OmegaConf.structured(DistillConfig()))

    def test_by_the_task(self, numpy_2, data):
        task = TranslationSeqKDTask.setup_task(
            TranslationSeqKDConfig(data=str(data), dataset_impl=None, num_batch_buckets=4)
        )
        with pytest.raises(ValueError, match="--num-batch-buckets .* TranslationSeqKDTask"):
            task.load_dataset("valid")

    def test_recorded_in_a_teachers_checkpoint(self, numpy_2, data, teacher, tmp_path):
        state = torch.load(teacher)
        state["cfg"]["task"]["num_batch_buckets"] = 4
        torch.save(state, tmp_path / "teacher.pt")
        with pytest.raises(ValueError, match="--num-batch-buckets of the task TranslationTask"):
            Split.load_for_scoring(str(tmp_path / "teacher.pt"), str(data), "valid")


def test_training_with_bleu_can_be_resumed(data, teacher, tmp_path):
    run = ["--task", "translation", "--criterion", "cross_entropy", "--eval-bleu"]
    train(data, tmp_path, *run, "--max-update", "1")
    train(data, tmp_path, *run, "--max-update", "2")
    history = torch.load(tmp_path / "checkpoint_last.pt")["optimizer_history"]
    assert history[-1]["num_updates"] == 2
