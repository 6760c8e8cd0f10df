"""Reads and writes fairseq checkpoints, with errors that name the file and the remedy."""

import contextlib
import errno
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


def checkpoint_paths(path):
    """Split a path into its checkpoint files; an ensemble's are separated by colons.

    Raises:
        FileNotFoundError: names the first file that does not exist
        ValueError: it is there in shards
    """
    paths = utils.split_paths(path)
    for checkpoint in paths:
        if not os.path.isfile(checkpoint):
            shard = f"{os.path.splitext(checkpoint)[0]}-shard0.pt"
            if os.path.isfile(shard):
                raise _is_sharded(shard)
            raise FileNotFoundError(
                f"no checkpoint at {checkpoint!r}. Expected a file that fairseq-train wrote "
                "(several are separated by colons)."
            )
    return paths


def sha256_of_checkpoints(path):
    """The SHA-256 of each file in ``path``; see `checkpoint_paths`."""
    return [sha256(checkpoint) for checkpoint in checkpoint_paths(path)]


def load_state(path):
    """Load a checkpoint through fairseq, which upgrades old ones; its configuration is ``cfg``.

    Raises:
        FileNotFoundError: the file does not exist
        ValueError: it is not a fairseq checkpoint, or holds a pickle that could run code
    """
    # With eval_bleu a task would load the tokeniser of its training, which may not be here.
    return _checked_state(
        path, lambda: checkpoint_utils.load_checkpoint_to_cpu(path, {"eval_bleu": False})
    )


def read_checkpoint(path):
    """Load a checkpoint exactly as it is in its file; errors as for `load_state`."""
    return _checked_state(path, lambda: torch.load(path, map_location="cpu"))


def _checked_state(path, load):
    _check_file(path)
    try:
        state = load()
    except pickle.UnpicklingError as error:
        verdict = "refused and nothing in it was executed" if LOADS_SAFELY else "not readable"
        raise ValueError(
            f"the checkpoint {path!r} was {verdict}. Expected a fairseq checkpoint; this file "
            "is not one, or holds a pickle that runs code. Take the checkpoint from a source "
            f"you trust. ({_reason(error)})"
        ) from error
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # a damaged or foreign file can raise anything
        raise _not_a_checkpoint(path, f"{type(error).__name__}: {_reason(error)}") from error
    if isinstance(state, dict) and "fsdp_metadata" in state:
        raise _is_sharded(path)
    model = state.get("model") if isinstance(state, dict) else None
    if not isinstance(model, dict) or not any(map(torch.is_tensor, model.values())):
        raise _not_a_checkpoint(path, "it holds no model")
    return state


def _check_file(path):
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


def _reason(error):
    """The line of torch's message that names the problem, without torch's advice."""
    lines = str(error).strip().splitlines() or [""]
    return next((line.strip() for line in lines if "Unsupported" in line), lines[0])


def _not_a_checkpoint(path, found):
    return ValueError(
        f"{path!r} is not a fairseq checkpoint ({found}). Expected a "
        "file that fairseq-train wrote, such as checkpoints/checkpoint_best.pt."
    )


def _is_sharded(path):
    return ValueError(
        f"{path!r} is one shard of a model (--ddp-backend fully_sharded --use-sharded-state). "
        "Expected a whole model: train without --use-sharded-state, or join the shards with "
        "fairscale's FullyShardedDataParallel.consolidate_shard_weights."
    )


def write_checkpoint(state, path):
    """Write a checkpoint atomically: the file is complete, or it is not there.

    Raises:
        OSError: writing failed; names the file
    """
    with atomic_file(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch hides the operating system's error
            raise OSError(errno.EIO, f"cannot be written ({_reason(error)})", path) from error


def config_of(state, path):
    """The configuration in a checkpoint that `load_state` returned.

    Raises:
        ValueError: there is none; names the file
    """
    config = state.get("cfg")
    if config is None and state.get("args") is not None:
        config = convert_namespace_to_omegaconf(state["args"])
    if config is None or config.get("model") is None or config.get("task") is None:
        raise _not_a_checkpoint(path, "it has no configuration of a model and its task")
    return config


def plain_containers(value):
    """Convert namespaces, OmegaConf containers and enums to dictionaries, lists and strings."""
    if isinstance(value, Namespace):
        value = vars(value)
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, dict):
        return {key: plain_containers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_containers(item) for item in value]
    if isinstance(value, Enum):
        return str(value.value)
    return value


def writable(config):
    """A context in which keys can be added to a configuration of any type."""
    # Tasks and models without a dataclass have a Namespace, which is never locked.
    return open_dict(config) if OmegaConf.is_config(config) else contextlib.nullcontext()
