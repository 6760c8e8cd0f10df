"""All knowledge of the differences between versions of fairseq and torch.

Since torch 2.6 ``torch.load`` unpickles known-harmless types only. A fairseq
checkpoint holds a few more: the configuration (an ``argparse.Namespace`` or
omegaconf containers), the enums in it, and numpy scalars among the metrics.
They are allow-listed here, one by one; everything else in a checkpoint is
still refused, and nothing of a refused one is executed.

Before torch 2.6 there is no such list: loading a checkpoint runs whatever its
pickle says.
"""

import argparse
import collections
import typing

import numpy as np
import omegaconf
import torch
from omegaconf.base import ContainerMetadata, Metadata

_OMEGACONF_NODES = (
    "AnyNode",
    "BooleanNode",
    "EnumNode",
    "FloatNode",
    "IntegerNode",
    "StringNode",
)


def _checkpoint_globals():
    """The types that fairseq's own checkpoints hold beyond torch's list."""
    nodes = [getattr(omegaconf.nodes, name) for name in _OMEGACONF_NODES]
    return [
        argparse.Namespace,
        omegaconf.DictConfig,
        omegaconf.ListConfig,
        ContainerMetadata,
        Metadata,
        *nodes,
        typing.Any,
        dict,
        list,
        int,
        collections.defaultdict,
        np.dtype,
        np.core.multiarray.scalar,
        type(np.dtype(np.float64)),
    ]


def allow_fairseq_checkpoints():
    """Let ``torch.load`` read fairseq checkpoints where it refuses unknown types."""
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals(_checkpoint_globals())


allow_fairseq_checkpoints()
