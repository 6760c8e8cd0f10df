"""All knowledge of the differences between versions of fairseq, torch and numpy.

Since torch 2.6, ``torch.load`` refuses to unpickle types that it does not know to be harmless.
A fairseq checkpoint contains a few of them. They are allow-listed here one by one; everything
else is still refused, and nothing of it is executed.

Before torch 2.6 there is no such list: loading a checkpoint runs the code in its pickle.

This module imports nothing of fairseq, and is imported before it.
"""

import argparse
import collections
import importlib
import inspect
import logging
import typing
from typing import Callable, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, nodes
from omegaconf.base import ContainerMetadata, Metadata

# The model's configuration, if its architecture was given on the command line.
_NAMESPACE = [argparse.Namespace]

# Counts that --eval-bleu stores as arrays, and best values that are numpy scalars.
_NUMPY = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.int64, np.float64, np.float32)),
]
# What makes them; numpy 1 has it in the module numpy.core, numpy 2 in numpy._core.
_NUMPY_BUILDERS = [
    (value.__reduce__()[0], module)
    for value in (np.zeros(1), np.float64(0))
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
]

# The whole configuration, as fairseq 0.10 to 0.12 saved it.
_OMEGACONF = [
    *(DictConfig, ListConfig, ContainerMetadata, Metadata),
    *(nodes.AnyNode, nodes.BooleanNode, nodes.FloatNode, nodes.IntegerNode),
    *(nodes.StringNode, collections.defaultdict, typing.Any, dict, list, int),
]


# Whether torch.load refuses pickles that could run code.
LOADS_SAFELY = torch.__version__ >= "2.6"


def allow_fairseq_checkpoints():
    """Let ``torch.load`` read fairseq checkpoints if it refuses unknown types."""
    if LOADS_SAFELY:
        builders = [(f, f"{module}.{f.__name__}") for f, module in _NUMPY_BUILDERS]
        known = [*_NAMESPACE, *_NUMPY, *builders, *_OMEGACONF]
        torch.serialization.add_safe_globals(known)


def from_checkpoint(builder):
    """The argument {"from_checkpoint": True}, if ``builder`` accepts it.

    With it, fairseq's builders of tasks and models accept configurations that another version
    of fairseq wrote. Not every version and task has it.
    """
    accepts = "from_checkpoint" in inspect.signature(builder).parameters
    return {"from_checkpoint": True} if accepts else {}


def complete_task(task):
    """Give a task the attribute ``args``; returns the task.

    ``translation_from_pretrained_bart`` reads it, and fairseq 0.12 no longer sets it.
    """
    if not hasattr(task, "args"):
        task.args = task.cfg
    return task


class _Numpy1Option(NamedTuple):
    """An option of fairseq's tasks that needs ``np.compat``, which numpy 2 removed.

    Attributes:
        flag: as typed
        is_set: whether a task's configuration has it
        module: fairseq's, which uses ``np.compat``
        instead: what a training can do without it
    """

    flag: str
    is_set: Callable
    module: str
    instead: str


_NUMPY_1_OPTIONS = [
    _Numpy1Option(
        "--sample-break-mode eos",
        lambda config: str(getattr(config, "sample_break_mode", "")) == "eos",
        "fairseq.data.token_block_dataset",
        "--sample-break-mode complete",
    ),
    _Numpy1Option(
        "--num-batch-buckets",
        # Audio tasks have the flag as well, and other code for it.
        lambda config: (
            hasattr(config, "left_pad_source") and getattr(config, "num_batch_buckets", 0) > 0
        ),
        "fairseq.data.language_pair_dataset",
        "no --num-batch-buckets",
    ),
]


def check_numpy(task):
    """Raise a ValueError if a fairseq task has an option that this numpy cannot do."""
    config = getattr(task, "cfg", None) or getattr(task, "args", None)
    for option in _NUMPY_1_OPTIONS:
        if option.is_set(config) and _lacks_numpy_1(option.module):
            raise ValueError(
                f"{option.flag} of the task {type(task).__name__} needs numpy 1 with this "
                f"fairseq, found numpy {np.__version__}: pip install numpy==1.26.4 (with "
                f"Python 3.11 or 3.12), or train with {option.instead}"
            )


def _lacks_numpy_1(module):
    """Whether a module of fairseq uses ``np.compat`` and numpy has none."""
    source = inspect.getsource(importlib.import_module(module))
    return "np.compat" in source and not hasattr(np, "compat")


def silence_tensorboard_advice():
    """Leave out "Please install tensorboardX", which fairseq logs whenever it is imported.

    fairseq's own commands import their tasks before a plug-in, and log it before this runs.
    """
    logger = logging.getLogger("fairseq.tasks.text_to_speech")
    logger.addFilter(lambda record: "install tensorboardX" not in record.getMessage())


allow_fairseq_checkpoints()
silence_tensorboard_advice()
