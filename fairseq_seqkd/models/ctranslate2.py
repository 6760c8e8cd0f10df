"""Converts fairseq models to CTranslate2 with CTranslate2's own converter."""

import contextlib
import os
import tempfile
from argparse import Namespace

import torch

from fairseq_seqkd.io.files import atomic_directory, read_json, write_json
from fairseq_seqkd.models.checkpoints import (
    checkpoint_paths,
    config_of,
    load_state,
    plain_containers,
)
from fairseq_seqkd.models.dictionaries import save_unique
from fairseq_seqkd.models.language_tokens import is_multilingual


class EngineUnavailable(ValueError):
    """CTranslate2 cannot be used for this model, this search, or on this machine."""


class CannotConvert(EngineUnavailable):
    """CTranslate2's converter does not support this model."""


def ctranslate2_library():
    """Import the module ``ctranslate2``.

    Raises:
        EngineUnavailable: it is not installed
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise EngineUnavailable("it is not installed: pip install ctranslate2") from error
    return ctranslate2


def check_convertible(config, task):
    """Raise CannotConvert for a model that reads something else than plain text.

    Args:
        config, task: as for `convert_model`
    """
    if is_multilingual(config["task"].get("task") or config["task"].get("_name")):
        raise CannotConvert(
            "its task adds language tokens, which CTranslate2's engine does not get here"
        )
    if task.source_dictionary is None:
        raise CannotConvert("it converts models of text, and this one reads no text")


def convert_model(weights, config, task, folder, quantization=None):
    """Convert a model.

    Args:
        weights: {name: tensor}
        config: fairseq's configuration, as plain containers
        task: the model's fairseq task, with its dictionaries
        folder: the new folder to write to
        quantization: the type of the stored weights; None: as in the checkpoint
    Raises:
        EngineUnavailable: CTranslate2 is not installed
        CannotConvert: the converter refuses; gives its reason
    """
    ctranslate2_library()
    check_convertible(config, task)
    from ctranslate2.converters import FairseqConverter

    try:
        languages = task.cfg.source_lang, task.cfg.target_lang
        with tempfile.TemporaryDirectory() as temporary:
            dictionaries = task.source_dictionary, task.target_dictionary
            for lang, dictionary in zip(languages, dictionaries):
                save_unique(dictionary, os.path.join(temporary, f"dict.{lang}.txt"))
            path = os.path.join(temporary, "model.pt")
            torch.save({"args": _namespace(config), "model": weights}, path)
            converter = FairseqConverter(path, temporary, *languages)
            converter.convert(folder, quantization=quantization)
    except OSError:
        raise
    except Exception as error:  # the converter raises exceptions of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CannotConvert(f"it cannot convert the model: {reason}") from error


def _namespace(config):
    """All settings of task and model in one Namespace, as the converter expects them."""
    settings = {**config["task"], "task": config["task"]["_name"], **config["model"]}
    settings.setdefault("arch", config["model"].get("_name"))
    return Namespace(**settings)


def convert_teacher(teacher, folder, quantization=None):
    """Convert a loaded teacher, unless the folder exists.

    Args:
        teacher: `Teacher`, with its ``path``
        folder: the new folder: the converted model in ``model/``, and ``limits.json``
        quantization: as for `convert_model`
    Raises:
        EngineUnavailable, CannotConvert: as for `convert_model`, or it is an ensemble
    """
    paths = checkpoint_paths(teacher.path)
    if len(paths) > 1:
        raise CannotConvert(f"it is an ensemble of {len(paths)} models")
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    # Another process may have converted it in the meantime.
    with contextlib.suppress(FileExistsError), atomic_directory(folder) as new:
        state = load_state(paths[0])
        config = plain_containers(config_of(state, paths[0]))
        model = os.path.join(new, "model")
        convert_model(state["model"], config, teacher.task, model, quantization)
        write_limits(teacher, new)


def write_limits(teacher, folder):
    """Write a teacher's limits into the folder of the converted model; see `limits_of`."""
    limits = {
        "max_source_positions": teacher.max_source_positions(),
        "max_target_positions": teacher.max_target_positions(),
    }
    write_json(os.path.join(folder, "limits.json"), limits)


def limits_of(folder):
    """{"max_source_positions", "max_target_positions"} of a converted teacher."""
    return read_json(os.path.join(folder, "limits.json"))


def size_of(folder):
    """The bytes of a converted model, without other files in its folder."""
    loaded = (".bin", ".json", "vmap.txt")
    names = [name for name in os.listdir(folder) if name.endswith(loaded)]
    return sum(os.path.getsize(os.path.join(folder, name)) for name in names)
