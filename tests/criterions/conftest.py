"""Fixtures of the criteria's tests."""

import pytest
from conftest import S2T, batch_of, example, synthetic, train


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
