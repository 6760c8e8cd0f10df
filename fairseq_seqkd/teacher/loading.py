"""The flags that name a teacher, and how it is loaded from them."""

import logging
from dataclasses import dataclass, field
from typing import Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from fairseq_seqkd.models.adapters import DTYPES, check_dtype
from fairseq_seqkd.models.loading import TEACHER, load_models
from fairseq_seqkd.teacher.model import Teacher
from fairseq_seqkd.teacher.source import folder_of, open_source

logger = logging.getLogger(__name__)


@dataclass
class TeacherConfig(FairseqDataclass):
    """The flags that name the teacher; criterion and task have the same ones."""

    teacher_path: Optional[str] = field(
        default=None,
        metadata={
            "help": "the teacher's checkpoint; several separated by colons are averaged "
            "as probabilities"
        },
    )
    teacher_data: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder with the teacher's dictionaries (default: beside the "
            "checkpoint, else where its training data was)"
        },
    )
    teacher_source: Optional[str] = field(
        default=None,
        metadata={
            "help": "what the teacher reads in the place of the student's source: a data-bin "
            "with the same sentences, or none for a language model"
        },
    )
    teacher_dtype: Optional[ChoiceEnum(list(DTYPES))] = field(
        default=None,
        metadata={"help": "how the teacher computes (default: like the student)"},
    )


def teacher_dtype_of(student, cfg):
    """The dtype of a student's teacher: that of ``--teacher-dtype``, or the student's."""
    if cfg.teacher_dtype is not None:
        return DTYPES[str(cfg.teacher_dtype)]
    return next(student.parameters()).dtype


_LOADED = {}


def shared_teacher(
    path, student_task, data=None, device="cpu", dtype=torch.float32, source=None
):
    """The teacher of this process: loaded at the first call, then kept.

    Args as for `load_teacher`.
    """
    key = (path, data, str(device), dtype, source, source and id(student_task))
    if key not in _LOADED:
        _LOADED[key] = load_teacher(path, data, device, dtype, student_task, source=source)
    _LOADED[key].check_dictionaries(student_task)
    return _LOADED[key]


def load_teacher(
    path,
    data=None,
    device="cpu",
    dtype=torch.float32,
    student_task=None,
    role=TEACHER,
    languages=(None, None),
    source=None,
):
    """Load one or several checkpoints as one frozen model.

    Args:
        device, dtype: of the parameters
        path, data, student_task, role, languages: as for `load_models`, which also says what
            is raised
        source: the value of ``--teacher-source``; see `open_source`
    """
    device = torch.device(device)
    check_dtype(device, dtype, role.dtype_flag)
    # Building a model draws its initial weights: in the middle of a training step that
    # would shift the student's dropout, and a resumed run would not equal an unbroken one.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        how = student_task, role, languages, folder_of(source)
        models, task, knows_dictionary = load_models(path, data, *how)
    models = [model.to(device=device, dtype=dtype) for model in models]
    logger.info("%s: %s on %s, %s", role.name, path, device, dtype)
    source, tokens = open_source(source, models, task, student_task)
    return Teacher(models, task, knows_dictionary, path, tokens, source)
