"""Splits whose targets are scored by a teacher that reads another source than the student."""

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq import utils

from fairseq_seqkd.databin import DirectionSplit, PairSplit, Split
from fairseq_seqkd.models.datasets import data_sha256
from fairseq_seqkd.models.loading import open_task
from fairseq_seqkd.models.speech import is_speech, open_speech, targets_of_speech
from fairseq_seqkd.teacher import NONE, SOURCE_ENTRY, folder_of, load_sources, sources_of_each


class StudentSide(NamedTuple):
    """A split as the student has it.

    Attributes:
        split: `Split`
        sources: (length,) token ids of each sentence; empty if they are no text
        targets: (length,) token ids of each sentence
        sizes: (sentences,) lengths of the targets
    """

    split: Split
    sources: Any
    targets: Any
    sizes: np.ndarray


@dataclass
class SourcedSplit(Split):
    """A split with the teacher's sources (or none) and the student's targets.

    Attributes, in addition to those of `Split`:
        student: `StudentSide`
        source: see ``teacher/source.py``
        teacher_task: the teacher's
    """

    student: StudentSide
    source: Any
    teacher_task: Any

    @property
    def student_sources(self):
        """The sources that training will have in the place of the teacher's."""
        return self.student.sources

    def describe(self):
        """As `Split.describe`, of the student's files, and what the teacher reads."""
        return {**self.student.split.describe(), SOURCE_ENTRY: self.source.describe(self.name)}

    def max_positions(self):
        """The longest source and target, as the teacher's task limits them, or None."""
        limits = self.teacher_task.max_positions()
        return None if isinstance(limits, dict) else limits


def load_sourced_splits(path, data, name, source, how):
    """A list with the `SourcedSplit` of every data-bin in ``DATA1:DATA2``.

    Args:
        path: the teacher's checkpoints
        data: the student's data-bins, or its folder of speech
        name: the split's name
        source: the value of ``--teacher-source``; folders are separated by colons as well
        how: {"languages", "teacher_data", "config_yaml"}
    Raises:
        FileNotFoundError, ValueError: see `Split.load_shards_for_scoring` and `open_source`
    """
    sides = list(_student_sides(data, name, how["languages"], how["config_yaml"]))
    where = how["teacher_data"], sides[0].split.task, data
    sources, task = load_sources(path, *where, source)
    return [_join(side, one, task) for side, one in zip(sides, sources)]


def _join(side, source, task):
    split, student_task = side.split, side.split.task
    dataset = source.pairs(split.name, side.targets, side.sizes, student_task.target_dictionary)
    return SourcedSplit(split.folder, split.name, student_task, dataset, side, source, task)


def _student_sides(data, name, languages, config_yaml):
    """Yield the `StudentSide` of every data-bin, or that of a folder of speech."""
    first = utils.split_paths(data)[0]
    if is_speech(first, name):
        task = open_speech(data, name, config_yaml)
        targets = targets_of_speech(task.dataset(name))
        sizes = np.array([len(target) for target in targets])
        silence = [torch.empty(0, dtype=torch.long)] * len(targets)
        yield StudentSide(Split(data, name, task, task.dataset(name)), silence, targets, sizes)
        return
    task = open_task(first, *languages)
    pair = task.cfg.source_lang, task.cfg.target_lang
    for pairs in PairSplit.load_shards(task, data, name, *pair):
        pairs.check_targets()
        dataset = pairs.dataset
        split = DirectionSplit.from_pairs(pairs)
        yield StudentSide(split, dataset.src, dataset.tgt, dataset.tgt_sizes)


def check_teacher_source(stores, data, name, has_teacher):
    """Refuse caches that were made of another source than the teacher of this training reads.

    Args:
        stores: `DistributionCache` objects
        data: fairseq's ``data`` argument; None: not known
        name: the value of ``--teacher-source``
        has_teacher: whether there is a teacher beside the caches, for validation
    Raises:
        ValueError: lists what differs
    """
    if name is None and not has_teacher:
        return
    names = [name] * len(stores) if data is None else sources_of_each(data, name)
    for store, one in zip(stores, names):
        expected = (
            one
            if one in (None, NONE)
            else _describe_like(store.manifest.get(SOURCE_ENTRY), one)
        )
        store.check({SOURCE_ENTRY: expected}, exact=[SOURCE_ENTRY])


def _describe_like(entry, name):
    """A manifest's entry as if it had been made of the same files in a data-bin."""
    if not isinstance(entry, dict):
        return {"folder": name}
    folder, symbols = folder_of(name), entry["dictionary"]["symbols"]
    paths = {file: os.path.join(folder, file) for file in entry["sha256"]}
    found = {
        file: data_sha256(path, symbols) if os.path.exists(path) else "no such file"
        for file, path in paths.items()
    }
    return {**entry, "sha256": found}
