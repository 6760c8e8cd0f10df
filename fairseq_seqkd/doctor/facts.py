"""Looks up what is installed here, and what is in a checkpoint; judges nothing."""

import importlib
import importlib.metadata
import importlib.util
import os
import pickle
import platform
import re
from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

import fairseq_seqkd

DISTRIBUTIONS = (
    *("fairseq", "fairseq-fixed", "torch", "numpy", "omegaconf", "hydra-core", "pip"),
    *("sacrebleu", "sentencepiece", "safetensors", "tabulate", "tqdm"),
    *("ctranslate2", "matplotlib"),
)
EXTENSIONS = ("fairseq.libbleu", "fairseq.data.data_utils_fast")


@dataclass
class Facts:
    """What is installed here.

    Attributes:
        python: its version
        versions: {distribution: version} of those of DISTRIBUTIONS that are installed
        errors: {module: why it does not import}
        fairseq_path: of the file that ``import fairseq`` reads; None if there is none
        shadowed: whether that is another one than was installed
        drops_sentences: whether fairseq leaves out the rest of a last batch
        cuda: the version of CUDA that torch was built for, or None
        gpus: the names of those that torch sees
        compute_types: of CTranslate2 on this processor
        cores: that this process may run on
        threads: OMP_NUM_THREADS, or None
    """

    python: str = ""
    versions: Dict[str, str] = field(default_factory=dict)
    errors: Dict[str, str] = field(default_factory=dict)
    fairseq_path: Optional[str] = None
    shadowed: bool = False
    drops_sentences: bool = False
    cuda: Optional[str] = None
    gpus: Tuple[str, ...] = ()
    compute_types: Tuple[str, ...] = ()
    cores: int = 1
    threads: Optional[int] = None


def look():
    """The `Facts` of this machine."""
    versions = _versions()
    facts = Facts(platform.python_version(), versions, _errors(versions))
    facts.fairseq_path = _fairseq_path()
    facts.shadowed = _is_shadowed(facts.fairseq_path, versions)
    if "fairseq" not in facts.errors:
        facts.errors.update(_why_not(*EXTENSIONS))
        facts.drops_sentences = _drops_sentences()
    if "torch" not in facts.errors:
        facts.cuda, facts.gpus = _gpus()
    if "ctranslate2" in versions and "ctranslate2" not in facts.errors:
        facts.compute_types = _compute_types()
    facts.cores, facts.threads = _cores(), _threads()
    return facts


def _versions():
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _errors(versions):
    optional = [name for name in ("ctranslate2",) if name in versions]
    errors = _why_not("torch", "numpy", "fairseq", *optional)
    if fairseq_seqkd.import_error is not None:
        # The first attempt tells the cause; later ones may stumble over what it left behind.
        name = "fairseq" if "fairseq" in errors else "fairseq_seqkd"
        errors[name] = _one_line(fairseq_seqkd.import_error)
    return errors


def _why_not(*modules):
    """{module: why it does not import} of those that do not."""
    errors = {}
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever it is, it is what a user sees
            errors[module] = _one_line(f"{type(error).__name__}: {error}")
    return errors


def _one_line(text):
    return " ".join(text.split())


def _fairseq_path():
    try:
        spec = importlib.util.find_spec("fairseq")
    except ValueError:  # a module that is only half there
        return None
    return spec.origin if spec else None


def _is_shadowed(path, versions):
    """Whether ``path`` is no installed file, although fairseq was installed as files."""
    installed = [
        str(importlib.metadata.distribution(name).locate_file("fairseq/__init__.py"))
        for name in ("fairseq", "fairseq-fixed")
        if name in versions
    ]
    # What is installed in editable mode is elsewhere, and cannot be told from another one.
    there = [os.path.realpath(one) for one in installed if os.path.isfile(one)]
    return bool(path and there) and os.path.realpath(path) not in there


def _drops_sentences():
    """Three sentences of one token, in batches whose size is to be a multiple of two."""
    import numpy as np
    from fairseq.data import data_utils

    lengths = np.ones(3, np.int64)
    try:
        batches = data_utils.batch_by_size(
            np.arange(3), lengths.item, lengths, max_tokens=8, required_batch_size_multiple=2
        )
    except Exception:  # the extension is missing, which is said elsewhere
        return False
    return sum(map(len, batches)) < 3


def _gpus():
    import torch

    names = map(torch.cuda.get_device_name, range(torch.cuda.device_count()))
    return torch.version.cuda, tuple(names)


def _compute_types():
    import ctranslate2

    return tuple(sorted(ctranslate2.get_supported_compute_types("cpu")))


def _cores():
    # Not every system tells what a process may use.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads():
    number = re.match(r"\d+", os.environ.get("OMP_NUM_THREADS", ""))  # may be a list, 4,2
    return int(number[0]) if number else None


@dataclass
class CheckpointFacts:
    """What is in a checkpoint.

    Attributes:
        path: of its file
        error: why it does not load
        task, criterion, architecture: their names; None if it cannot be read
        parameters: how many numbers the model has
        dictionary: the folder where its dictionaries were found
        foreign: those of its task and criterion that are not stock fairseq's
        refused: a type in it that torch.load by itself refuses, or ""
    """

    path: str
    error: Optional[Exception] = None
    task: Optional[str] = None
    criterion: Optional[str] = None
    architecture: Optional[str] = None
    parameters: int = 0
    dictionary: Optional[str] = None
    foreign: Tuple[str, ...] = ()
    refused: str = ""


def look_at(path, data=None):
    """The `CheckpointFacts` of a checkpoint, where fairseq imports.

    Args:
        path: its file
        data: the folder with its dictionaries; None looks where a teacher's are looked for
    """
    from fairseq_seqkd.models.loading import load_models
    from fairseq_seqkd.models.parameters import parameters_of

    facts = CheckpointFacts(path)
    try:
        _read(facts)
        (model, *_), task, _ = load_models(path, data)
    except Exception as error:  # what a foreign task raises may be of any kind
        facts.error = error
        return facts
    weights = parameters_of(dict(model.named_parameters()))
    facts.parameters = sum(weight.numel() for weight in weights.values())
    facts.dictionary = (getattr(task, "cfg", None) or task.args).data
    return facts


def _read(facts):
    from fairseq.criterions import CRITERION_REGISTRY
    from fairseq.tasks import TASK_REGISTRY

    from fairseq_seqkd.models.checkpoints import config_of, load_state

    config = config_of(load_state(facts.path), facts.path)
    facts.task = _name(config.task, "task")
    facts.criterion = _name(config.get("criterion"), "criterion")
    facts.architecture = _name(config.model, "arch")
    named = {facts.task: TASK_REGISTRY, facts.criterion: CRITERION_REGISTRY}
    facts.foreign = tuple(
        name for name, registry in named.items() if name and not _is_stock(registry.get(name))
    )
    facts.refused = _refused(facts.path)
    if facts.task not in TASK_REGISTRY:
        raise ValueError(f"neither fairseq nor this package has a task {facts.task!r}")


def _name(settings, key):
    """What a part of a configuration is for; it may be a Namespace or a container."""
    return getattr(settings, key, None) or getattr(settings, "_name", None)


def _is_stock(registered):
    return registered is not None and registered.__module__.startswith("fairseq.")


def _refused(path):
    """The type that torch.load refuses where nothing has allowed it, or ""."""
    import torch

    from fairseq_seqkd.compat import LOADS_SAFELY

    if not LOADS_SAFELY:
        return ""
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        torch.load(path, map_location="cpu")
    except pickle.UnpicklingError as error:
        return re.search(r"GLOBAL (\S+)|$", str(error))[1] or "what is in it"
    finally:
        torch.serialization.add_safe_globals(allowed)
    return ""
