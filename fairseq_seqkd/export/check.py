"""Checks an exported CTranslate2 folder: it translates as the student does with fairseq."""

import os
import tempfile

import numpy as np
import torch
from fairseq import utils

from fairseq_seqkd.databin import open_split
from fairseq_seqkd.decoding.agreement import GREEDY, compare_engines
from fairseq_seqkd.decoding.ctranslate2_engine import CTranslate2Engine
from fairseq_seqkd.decoding.fairseq_engine import FairseqEngine
from fairseq_seqkd.models.ctranslate2 import convert_teacher, write_limits
from fairseq_seqkd.models.language_tokens import languages_of
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.teacher import Teacher

_REMEDY = "--to fairseq exports any model; --no-check exports this one as it is."


def check_folder(student, folder, quantization, split):
    """Compare the translations of an exported folder with the student's.

    Args:
        student: `Student`
        folder: the exported folder, with the dictionaries
        quantization: the type of its weights; None: as in the checkpoint
        split: `PairSplit` with the sentences
    Returns:
        the `Agreement`
    Raises:
        Disagreement: they differ too much
        ValueError: the split has no sentence that the student takes
    """
    with tempfile.TemporaryDirectory() as temporary:
        teacher = _teacher(student, temporary, folder, split.task)
        whole = _engine(_linked(teacher, folder, os.path.join(temporary, "out")), teacher)
        shipped = whole.without_shortlist()
        original = FairseqEngine(teacher, GREEDY, keep_unfinished=True)
        converted, quantised = shipped, None
        if quantization not in (None, "float32"):
            float32 = os.path.join(temporary, "float32")
            convert_teacher(teacher, float32, "float32")
            converted, quantised = _engine(float32, teacher), shipped
        ids = _sentences(split, original.max_source_positions)
        shortlisted = whole if whole.use_vmap else None
        agreement = compare_engines(
            original, converted, quantised, split.dataset, ids, shortlisted
        )
    agreement.refuse(_REMEDY)
    return agreement


def _teacher(student, folder, dictionaries, task):
    """The student as a `Teacher`, by way of a file, since it may come from a sparse one."""
    path = os.path.join(folder, "student.pt")
    student.save(path)
    models, own_task, _ = load_models(path, dictionaries, task)
    return Teacher(models, own_task, path=path)


def _linked(teacher, folder, link):
    """A folder as `convert_teacher` writes it, with the exported model."""
    os.makedirs(link)
    os.symlink(os.path.abspath(folder), os.path.join(link, "model"))
    write_limits(teacher, link)
    return link


def _engine(folder, teacher):
    dictionaries = teacher.task.source_dictionary, teacher.task.target_dictionary
    settings = {"compute_type": "default", "max_tokens": 512}
    device, threads = torch.device("cpu"), torch.get_num_threads()
    return CTranslate2Engine(
        folder, GREEDY, settings, device, threads, dictionaries, keep_unfinished=True
    )


def _sentences(split, longest):
    """The ids of the sentences that are not empty, and short enough for the model."""
    lengths = split.dataset.src_sizes
    ids = np.flatnonzero((lengths > 1) & (lengths <= longest))
    if not len(ids):
        raise ValueError(
            f"--check: the split {split.name!r} of {split.folder!r} has no sentence of 1 to "
            f"{longest - 1} tokens. Name another with --check DATA:SPLIT, or --no-check."
        )
    return ids


def split_to_check(requested, student, data, task):
    """Open the split whose sentences are compared.

    Args:
        requested: the value of --check, DATA or DATA:SPLIT; None: the validation split of the
            data that the student was trained on, or else of ``data``
        student: `Student`
        data: the value of --data, or None
        task: the student's task
    Returns:
        the `PairSplit`, and None; or None, and the reason why there is none
    Raises:
        OSError, ValueError: as for `open_split`, or the split has other dictionaries, if the
            data was asked for
    """
    if requested is not None:
        return _open(*_folder_and_split(requested), task), None
    reason = "the student does not say what it was trained on (--check DATA names other data)"
    for folder in filter(None, (student.config["task"].get("data"), data)):
        try:
            return _open(utils.split_paths(folder)[0], "valid", task), None
        except (OSError, ValueError) as error:
            reason = str(error)
    return None, reason


def _folder_and_split(requested):
    folder, colon, name = requested.rpartition(":")
    return (requested, "valid") if not colon or os.path.isdir(requested) else (folder, name)


def _open(folder, name, task):
    split = open_split(folder, name, *languages_of(task))
    for side in ("source_dictionary", "target_dictionary"):
        if getattr(split.task, side).symbols != getattr(task, side).symbols:
            raise ValueError(
                f"--check: {folder!r} has another {side.replace('_', ' ')} than the student. "
                "Name data that was binarised with the student's dictionaries."
            )
    return split
