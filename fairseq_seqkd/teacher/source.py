"""Sources that a teacher reads in the place of the student's: ``--teacher-source``.

A source is an object with ``inputs(sample, training)``, which makes the teacher's arguments of
a student's batch, and ``shared_sides``, whose dictionaries must be the student's. The default,
`StudentSource`, stands beside `Teacher`.
"""

import math
import os

import torch
from fairseq import utils
from fairseq.data import LanguagePairDataset
from fairseq.models import FairseqLanguageModel

from fairseq_seqkd.models.checkpoints import checkpoint_paths, config_of, load_state
from fairseq_seqkd.models.data_folders import folder_of_each
from fairseq_seqkd.models.fit import reads_source
from fairseq_seqkd.models.language_tokens import (
    check_plain_targets,
    config_of_task,
    tokens_of_plain_pairs,
    tokens_to_add,
)
from fairseq_seqkd.models.loading import task_with_own_dictionaries
from fairseq_seqkd.teacher.folder_source import FolderSource
from fairseq_seqkd.teacher.model import NothingAdded, StudentSource

NONE = "none"  # the value of --teacher-source for a language model
SOURCE_ENTRY = "teacher_source"  # of a manifest; absent if the teacher reads the student's


def folder_of(name):
    """The data-bin that ``--teacher-source`` names, or None.

    Raises:
        FileNotFoundError: it does not exist
    """
    if name in (None, NONE):
        return None
    if not os.path.isdir(name):
        raise FileNotFoundError(
            f"--teacher-source: there is no folder {name!r}. Expected a data-bin that "
            f"fairseq-preprocess wrote, or {NONE!r} for a language model."
        )
    return name


def open_source(name, models, task, student_task):
    """The source that a teacher reads, and the tokens that it gets beside.

    Args:
        name: the value of ``--teacher-source``: None, ``none`` or a data-bin
        models, task: the teacher's; no models: they are not checked
        student_task: the student's task
    Returns:
        a source, and the teacher's `LanguageTokens`; None: none are added
    Raises:
        FileNotFoundError: the data-bin has no such split
        ValueError: the teacher, the data-bin and the student's data do not fit
    """
    if name is None:
        return StudentSource(), tokens_to_add(task, student_task)
    check_plain_targets(student_task)
    if name == NONE:
        _check_language_models(models)
        return PrefixesAlone(), _start_of(task)
    for model in models:
        if not reads_source(model):
            raise ValueError(
                f"--teacher-source {name!r}: the teacher, {type(model).__name__}, reads no "
                "source. Expected an encoder-decoder; of a language model give "
                f"--teacher-source {NONE}."
            )
    tokens = tokens_of_plain_pairs(task, student_task)
    limits = [model.max_positions()[0] for model in models]
    limits.append(getattr(config_of_task(task), "max_source_positions", math.inf))
    longest = min(limits) - (tokens.n_source if tokens else 0)
    return FolderSource(name, task, student_task, longest), tokens


def sources_of_each(data, name):
    """The value of ``--teacher-source`` for each data-bin in ``DATA1:DATA2``.

    Args:
        data: fairseq's ``data`` argument
        name: folders separated by colons, as many as data-bins; or None, or ``none``
    Raises:
        ValueError: there are more or fewer; gives both numbers
    """
    if name in (None, NONE):
        return [name] * len(utils.split_paths(data))
    return folder_of_each(data, name, "--teacher-source")


def load_sources(path, data, student_task, student_data, name):
    """The sources that a teacher reads, and its task; its models are not loaded.

    Args:
        path, data: as for `load_models`
        student_task: the student's task
        student_data, name: as for `sources_of_each`
    Returns:
        a list with the source of each data-bin, and the task
    Raises:
        FileNotFoundError, ValueError: as for `load_models` and `open_source`
    """
    names, first = sources_of_each(student_data, name), checkpoint_paths(path)[0]
    config = config_of(load_state(first), first).task
    how = {"student_task": student_task, "source_folder": folder_of(names[0])}
    task, _ = task_with_own_dictionaries(config, first, data, **how)
    return [open_source(one, [], task, student_task)[0] for one in names], task


def _check_language_models(models):
    for model in models:
        is_causal = getattr(model, "supported_targets", {"future"}) == {"future"}
        if not (isinstance(model, FairseqLanguageModel) and is_causal):
            raise ValueError(
                f"--teacher-source {NONE}: the teacher, {type(model).__name__}, is no language "
                "model that predicts from left to right, such as those of the task "
                "language_modeling. Leave the flag out for a teacher that reads the student's "
                "source, or name a data-bin with the source that it reads."
            )


class PrefixesAlone:
    """The teacher reads no source: a language model, which knows the target's prefix alone.

    Source: Bai et al. 2019 (arXiv 1907.06017).
    """

    shared_sides = ("target",)

    def inputs(self, sample, training=True):
        """See `Teacher.inputs_of`."""
        return prefixes_alone(sample["net_input"])

    def describe(self, split):
        """The manifest's entry ``teacher_source``."""
        return NONE

    def sources(self, split, expected):
        """There are none to translate."""
        raise ValueError(
            f"--teacher-source {NONE}: a language model scores targets, and does not "
            "translate. Give a teacher that does, and name a data-bin with its sources."
        )

    def pairs(self, split, targets, sizes, dictionary):
        """The data set from which targets are scored; see `FolderSource.pairs`."""
        return TargetsAlone(targets, sizes, dictionary, targets, sizes, dictionary)


def prefixes_alone(net_input):
    """The arguments of a language model's forward, of a batch of pairs.

    Language models of fairseq begin with EOS, as the decoder's contexts do.
    """
    contexts = net_input.get("prev_output_tokens")
    if contexts is None:
        raise ValueError(
            f"--teacher-source {NONE}: the student is a language model itself, and both read "
            "the same. Leave the flag out."
        )
    lengths = torch.full_like(contexts[:, 0], contexts.size(1))
    return {"src_tokens": contexts, "src_lengths": lengths}


class TargetsAlone(LanguagePairDataset):
    """Targets, in batches as a language model reads them."""

    def collater(self, samples, pad_to_length=None):
        batch = super().collater(samples, pad_to_length=pad_to_length)
        return {**batch, "net_input": prefixes_alone(batch["net_input"])} if batch else batch


def _start_of(task):
    """The tokens that a language model lacks before a context; None: nothing."""
    if getattr(config_of_task(task), "add_bos_token", False):
        return BeginningAdded(task.target_dictionary)
    return None


class BeginningAdded(NothingAdded):
    """BOS stands before EOS in a language model's contexts (``--add-bos-token``).

    Args:
        dictionary: the target dictionary
    """

    shift = n_target = 1

    def __init__(self, dictionary):
        self.context_start = dictionary.bos(), dictionary.eos()

    def add_to_inputs(self, net_input):
        contexts, lengths = net_input["src_tokens"], net_input["src_lengths"]
        first = torch.full_like(contexts[:, :1], self.context_start[0])
        return {"src_tokens": torch.cat([first, contexts], 1), "src_lengths": lengths + 1}
