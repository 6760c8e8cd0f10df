"""All knowledge of the differences between versions of fairseq and torch.

Since torch 2.6, ``torch.load`` refuses to unpickle types that it does not know to be harmless.
A fairseq checkpoint contains a few of them. They are allow-listed here one by one; everything
else is still refused, and nothing of it is executed.

Before torch 2.6 there is no such list: loading a checkpoint runs the code in its pickle.
"""

import argparse
import collections
import inspect
import typing

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
    np.core.multiarray._reconstruct,
    np.core.multiarray.scalar,
    *(type(np.dtype(kind)) for kind in (np.int64, np.float64, np.float32)),
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
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals([*_NAMESPACE, *_NUMPY, *_OMEGACONF])


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


allow_fairseq_checkpoints()
