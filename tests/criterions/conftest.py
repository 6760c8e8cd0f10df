"""Fixtures of the criteria's tests."""

import pytest
from conftest import S2T, batch_of, example, synthetic, train
from omegaconf import OmegaConf

from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion


@pytest.fixture
def batch(task):
    """The first six sentences of the validation set."""
    return batch_of(task, range(6), "valid")


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    """A folder of features of 18 to 70 frames, with their manifests."""
    folder = tmp_path_factory.mktemp("speech")
    synthetic().write_corpus(folder / "text", {"train": 30, "valid": 12, "test": 4})
    example("speech_to_text/features.py").write_data(folder / "text", folder / "data")
    return folder / "data"


@pytest.fixture(scope="session")
def speech_teacher(speech, tmp_path_factory):
    """The checkpoint of a speech translation model."""
    folder = tmp_path_factory.mktemp("speech-teacher")
    loss = ["--task", "speech_to_text", "--criterion", "label_smoothed_cross_entropy"]
    train(speech, folder, *loss, "--max-tokens", 600, "--max-update", 20, model=S2T)
    return folder / "checkpoint_last.pt"


@pytest.fixture
def training(task, teacher):
    """training(**values): a criterion as fairseq would build it from flags."""

    def training(**values):
        common = {"sentence_avg": False, "seed": 1, "max_update": 10}
        common.update(finetune_from_model="student.pt", restore_file="checkpoint_last.pt")
        cfg = {**common, "teacher_path": str(teacher), **values}
        return DistillCriterion(task, OmegaConf.structured(DistillConfig(**cfg))).train()

    return training
