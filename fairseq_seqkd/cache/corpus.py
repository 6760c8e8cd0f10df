"""A split of a binarised corpus as the teacher's own task reads it, whatever task that is."""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairseq import utils

from fairseq_seqkd.checkpoints import task_on
from fairseq_seqkd.shards import sha256


@dataclass
class Targets:
    """What a cache is made for.

    Attributes:
        folder: the data-bin
        split: its name, such as ``train``
        task: the fairseq task that loaded it
        dataset: its sentences, by id
    """

    folder: str
    split: str
    task: Any
    dataset: Any

    @classmethod
    def load(cls, teacher_path, folder, split):
        """The split, read by the task that the teacher was trained with.

        Raises:
            FileNotFoundError: the folder, the split or a dictionary is not there
            ValueError: several folders or files, so that a number tells no sentence
        """
        folders = utils.split_paths(folder)
        if len(folders) > 1:
            raise ValueError(
                f"data is {folder!r}: a cache is kept for one data-bin, found {len(folders)} "
                "separated by colons. Binarise them as one."
            )
        if not files_of(folder, split):
            raise FileNotFoundError(
                f"{folder!r} has no split {split!r} (no file whose name begins with "
                f"{split + '.'!r}): expected a data-bin that fairseq-preprocess wrote"
            )
        if files_of(folder, split + "1"):
            raise ValueError(
                f"{folder!r} has {split}1 files, which fairseq appends to {split}: a cache is "
                "kept for one file. Binarise them as one split."
            )
        task = task_on(teacher_path, folder)
        task.load_dataset(split)
        dataset = task.dataset(split)
        if not isinstance(dataset[0], dict):
            raise ValueError(
                f"the data set of the task {type(task).__name__} cannot be cached: expected "
                "sentences with a source and a target of symbols, or a text. Take "
                "--teacher-path in the training."
            )
        if "target" not in dataset[0] or dataset[0]["target"] is None:
            raise ValueError(
                f"the split {split!r} of {folder!r} has no targets, whose positions the "
                "teacher could score. Let it translate them (fairseq-seqkd generate), and name "
                "the data-bin that comes out."
            )
        return cls(folder, split, task, dataset)

    def __len__(self):
        return len(self.dataset)

    def lengths(self):
        """(sentences,) numbers by which sentences of alike lengths come to stand together.

        Where the data set knows both sides, the target's length counts, and among equal ones
        the source's: a batch is padded least on both sides.
        """
        sides = [getattr(self.dataset, f"{side}_sizes", None) for side in ("tgt", "src")]
        if any(side is None for side in sides):
            return np.array([self.dataset.num_tokens(id_) for id_ in range(len(self))])
        target, source = (np.asarray(side, dtype=np.int64) for side in sides)
        return target * (source.max(initial=0) + 1) + source

    def target_tokens(self):
        """The number of all target tokens, roughly where the data set does not say."""
        return int(np.sum(getattr(self.dataset, "tgt_sizes", self.dataset.sizes)))

    def describe(self):
        """The manifest's entries ``data`` and ``dictionary``."""
        data = {"split": self.split, "sentences": len(self)}
        return {
            "data": {**data, "sha256": sums_of(self.folder, self.split)},
            "dictionary": describe_dictionary(self.task.target_dictionary),
        }


def files_of(folder, split):
    """The names of a split's files."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if name.startswith(split + "."))


def sums_of(folder, split):
    """{name: SHA-256} of a split's files; of binarised ones without their indices."""
    names = files_of(folder, split)
    names = [name for name in names if name.endswith(".bin")] or names
    return {name: sha256(os.path.join(folder, name)) for name in names}


def describe_dictionary(dictionary):
    """What tells a dictionary from another: how many symbols, and their SHA-256."""
    symbols = "\n".join(dictionary.symbols).encode()
    return {"symbols": len(dictionary), "sha256": hashlib.sha256(symbols).hexdigest()}
