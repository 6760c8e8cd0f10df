"""Looks up what is installed; judges nothing.

It runs where fairseq does not import, so fairseq is imported only inside of functions.
"""

import importlib
import importlib.metadata
import importlib.util
import platform
import re
from dataclasses import dataclass, field
from typing import Dict, Optional

import fairseq_seqkd

# A part of fairseq that is compiled for the numpy that was there, and that makes batches.
COMPILED = "fairseq.data.data_utils_fast"


@dataclass
class Installation:
    """The installed packages.

    Attributes:
        python: version of Python
        versions: {distribution: version}
        errors: {module: why it does not import}
        fairseq_path: the file that ``import fairseq`` runs; None if there is none
        drops_sentences: whether fairseq drops the rest of a last batch
    """

    python: str = ""
    versions: Dict[str, str] = field(default_factory=dict)
    errors: Dict[str, str] = field(default_factory=dict)
    fairseq_path: Optional[str] = None
    drops_sentences: bool = False


def inspect_installation():
    """The `Installation` of this Python."""
    versions = _versions()
    modules = ["torch", "numpy", "fairseq", *({"ctranslate2"} & versions.keys())]
    errors = _import_errors(modules)
    if "fairseq" not in errors:
        errors.update(_import_errors([COMPILED]))
    if fairseq_seqkd.import_error is not None:
        # The first import shows the cause; a later one may fail because of the first.
        module = "fairseq" if "fairseq" in errors else "fairseq_seqkd"
        errors[module] = " ".join(fairseq_seqkd.import_error.split())
    drops_sentences = "fairseq" not in errors and _drops_sentences()
    return Installation(
        platform.python_version(), versions, errors, _fairseq_path(), drops_sentences
    )


def _versions():
    versions = {}
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        versions.setdefault(name, distribution.version)  # the first on sys.path counts
    return versions


def _import_errors(modules):
    errors = {}
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # such as ValueError from upstream fairseq on Python 3.11
            errors[module] = " ".join(f"{type(error).__name__}: {error}".split())
    return errors


def _fairseq_path():
    try:
        spec = importlib.util.find_spec("fairseq")
    except ValueError:  # the remains of a failed import
        return None
    return spec.origin if spec else None


def _drops_sentences():
    """Whether batches of an even number of sentences leave out one of three."""
    import numpy as np
    from fairseq.data.data_utils import batch_by_size

    try:
        batches = batch_by_size(np.arange(3), lambda _: 1, required_batch_size_multiple=2)
    except Exception:  # fairseq's compiled extension is broken
        return False
    return sum(map(len, batches)) < 3
