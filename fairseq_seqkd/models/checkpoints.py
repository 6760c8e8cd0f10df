"""Reads checkpoints: models, the task that built them, and their own dictionaries.

fairseq keeps no dictionary in a checkpoint, so it has to be found.
"""

import contextlib
import errno
import logging
import os
import pickle
from argparse import Namespace
from enum import Enum

import torch
from fairseq import checkpoint_utils, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf, open_dict

from fairseq_seqkd.compat import LOADS_SAFELY
from fairseq_seqkd.io.files import atomic_file, sha256

logger = logging.getLogger(__name__)


def checkpoint_paths(path):
    """The checkpoints that a path names, several separated by colons.

    Raises:
        FileNotFoundError: names the first that is not there
    """
    paths = utils.split_paths(path)
    for one in paths:
        if not os.path.isfile(one):
            raise FileNotFoundError(
                f"no checkpoint at {one!r}. Expected a file that fairseq-train wrote "
                "(several are separated by colons)."
            )
    return paths


def sums_of_checkpoints(path):
    """The SHA-256 of each checkpoint that a path names; errors as of checkpoint_paths."""
    return [sha256(one) for one in checkpoint_paths(path)]


def load_state(path):
    """A checkpoint as fairseq reads it: with its configuration under ``cfg``.

    Raises:
        FileNotFoundError: there is no such file
        ValueError: it is no fairseq checkpoint, or holds a pickle that could run code
    """
    # The model's own validation BLEU is not wanted, and might need a tokeniser.
    return _read(
        path, lambda: checkpoint_utils.load_checkpoint_to_cpu(path, {"eval_bleu": False})
    )


def read_checkpoint(path):
    """A checkpoint as it is in its file; errors as of `load_state`."""
    return _read(path, lambda: torch.load(path, map_location="cpu"))


def _read(path, load):
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"no checkpoint at {path!r}. Expected a file that fairseq-train wrote."
        )
    with open(path, "rb") as file:
        if file.read(9)[8:] == b"{":  # the header of a safetensors file
            raise ValueError(
                f"{path!r} is not a fairseq checkpoint: it looks like a sparse file. "
                "fairseq-seqkd export FILE.safetensors --to fairseq makes a checkpoint of it."
            )
    try:
        state = load()
    except pickle.UnpicklingError as error:
        how = "refused and nothing in it was executed" if LOADS_SAFELY else "not readable"
        raise ValueError(
            f"the checkpoint {path!r} was {how}. Expected a fairseq checkpoint; this file "
            "is none, or holds a pickle that runs code. Take the checkpoint from a source "
            f"you trust. ({_reason(error)})"
        ) from error
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # whatever a file that is none, or is damaged, leads to
        raise _not_a_checkpoint(path, f"{type(error).__name__}: {_reason(error)}") from error
    model = state.get("model") if isinstance(state, dict) else None
    if not isinstance(model, dict) or not any(map(torch.is_tensor, model.values())):
        raise _not_a_checkpoint(path, "it holds no model")
    return state


def _reason(error):
    """The line of torch's error that says what it met, without its advice."""
    lines = str(error).strip().splitlines() or [""]
    return next((line.strip() for line in lines if "Unsupported" in line), lines[0])


def _not_a_checkpoint(path, found):
    return ValueError(
        f"{path!r} is not a fairseq checkpoint ({found}). Expected a "
        "file that fairseq-train wrote, such as checkpoints/checkpoint_best.pt."
    )


def write_checkpoint(state, path):
    """Write a checkpoint; the file is there whole or not at all.

    Raises:
        OSError: it cannot be written; names the file
    """
    with atomic_file(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch hides what the file system said
            raise OSError(errno.EIO, f"cannot be written ({_reason(error)})", path) from error


def config_of(state, path):
    """The configuration of a checkpoint that `load_state` returned.

    Raises:
        ValueError: it has none; names the file
    """
    config = state.get("cfg")
    if config is None and state.get("args") is not None:
        config = convert_namespace_to_omegaconf(state["args"])
    if config is None or config.get("model") is None or config.get("task") is None:
        raise _not_a_checkpoint(path, "it has no configuration of a model and its task")
    return config


def plain_containers(value):
    """Dictionaries, lists, numbers and strings in the place of anything that holds some."""
    if isinstance(value, Namespace):
        value = vars(value)
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, dict):
        return {key: plain_containers(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_containers(one) for one in value]
    if isinstance(value, Enum):
        return str(value.value)
    return value


def writable(config):
    """A context in which keys may be added to a configuration of any kind."""
    # Tasks and models without a dataclass keep theirs in a plain Namespace.
    return open_dict(config) if OmegaConf.is_config(config) else contextlib.nullcontext()
