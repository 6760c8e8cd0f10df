"""Data of fairseq's task ``speech_to_text``: manifests, and targets without the audio."""

import copy
import os
from argparse import Namespace

import torch
from fairseq.tasks.speech_to_text import SpeechToTextTask

CONFIG = "config.yaml"  # fairseq's default of --config-yaml


def is_speech(folder, split):
    """Whether a folder has a manifest of speech for a split."""
    return os.path.isfile(os.path.join(folder, f"{split}.tsv"))


def open_speech(folder, split, config_yaml=None):
    """The task of a folder of speech, with one split loaded.

    Args:
        folder: with the manifests ``SPLIT.tsv``
        split: its name
        config_yaml: as for fairseq's --config-yaml
    Raises:
        FileNotFoundError: there is no such configuration
    """
    config = os.path.join(folder, config_yaml or CONFIG)
    if not os.path.isfile(config):
        raise FileNotFoundError(
            f"there is no file {config!r}, the configuration of the speech in {folder!r}: give "
            "its name with --config-yaml"
        )
    names = {
        "data": folder,
        "config_yaml": config_yaml or CONFIG,
        "multitask_config_yaml": None,
    }
    limits = {"max_source_positions": 6000, "max_target_positions": 1024}
    task = SpeechToTextTask.setup_task(Namespace(**names, **limits, seed=1, train_subset=None))
    task.load_dataset(split)
    return task


def targets_of_speech(dataset):
    """A list with the (length,) targets of a SpeechToTextDataset; no audio is read."""
    silent, n_frames = copy.copy(dataset), getattr(dataset, "n_frames_per_step", 1)
    silent._get_source_audio = lambda index: torch.zeros(n_frames, 1)
    return [silent[id_].target for id_ in range(len(dataset))]
