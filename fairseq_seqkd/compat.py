"""All knowledge of the differences between versions of fairseq and torch.

Since torch 2.6 ``torch.load`` unpickles types that it knows to be harmless and refuses the
rest. A fairseq checkpoint holds a few more, which are allow-listed here one by one:
everything else in a checkpoint is still refused, and nothing of it is executed.

Before torch 2.6 there is no such list: loading a checkpoint runs whatever its pickle says.
"""

import argparse
import collections
import inspect
import typing

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, nodes
from omegaconf.base import ContainerMetadata, Metadata

# The model's configuration, whenever its architecture came from the command line.
_NAMESPACE = [argparse.Namespace]

# The counts that --eval-bleu keeps as arrays, and best values that are numpy scalars.
_NUMPY = [
    np.ndarray,
    np.dtype,
    np.core.multiarray._reconstruct,
    np.core.multiarray.scalar,
    *(type(np.dtype(kind)) for kind in (np.int64, np.float64, np.float32)),
]

# Between 0.10 and 0.12 fairseq saved its configuration as omegaconf containers.
_OMEGACONF = [
    *(DictConfig, ListConfig, ContainerMetadata, Metadata),
    *(nodes.AnyNode, nodes.BooleanNode, nodes.FloatNode, nodes.IntegerNode),
    *(nodes.StringNode, collections.defaultdict, typing.Any, dict, list, int),
]


# Whether torch.load refuses what could run code.
LOADS_SAFELY = torch.__version__ >= "2.6"


def allow_fairseq_checkpoints():
    """Let ``torch.load`` read fairseq checkpoints where it refuses unknown types."""
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals([*_NAMESPACE, *_NUMPY, *_OMEGACONF])


def from_checkpoint(builder):
    """{"from_checkpoint": True} if a task's builder takes it.

    It makes fairseq forgive what another version of it put into a configuration; not every
    version and not every task knows it.
    """
    known = "from_checkpoint" in inspect.signature(builder).parameters
    return {"from_checkpoint": True} if known else {}


allow_fairseq_checkpoints()
