"""The models of a comparison, each with the splits it translates."""

import contextlib
import os
from dataclasses import dataclass
from typing import Any, List

from fairseq_seqkd.databin import PairSplit
from fairseq_seqkd.decoding.refinement_engine import is_refining
from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.models.checkpoints import checkpoint_paths, config_of, load_state
from fairseq_seqkd.models.datasets import concatenate_sources
from fairseq_seqkd.models.language_tokens import (
    config_of_task,
    language_tokens_of,
    languages_of,
)
from fairseq_seqkd.models.loading import ModelRole, task_with_dictionaries_in
from fairseq_seqkd.models.parameters import parameters_of
from fairseq_seqkd.teacher import Teacher, load_teacher

CANDIDATE = ModelRole("model", "--data-of NAME=DATA", "--devices")


@dataclass
class Candidate:
    """A model and the splits it translates, binarised with the model's own dictionaries.

    Attributes:
        name: the model's name in the report
        path: its checkpoint, or several separated by colons (an ensemble)
        model: the loaded model, on the CPU
        splits: the sentences, a `PairSplit` each
        dataset: those of all splits, one after the other
        detokenise, detokenise_source: `Detokeniser` of its target and source tokens; None
            until `set_text` is called
        shortlist: `Shortlist` for its engines with one; None: it has none
    """

    name: str
    path: str
    model: Teacher
    splits: List[PairSplit]
    dataset: Any
    detokenise: Any = None
    detokenise_source: Any = None
    shortlist: Any = None

    @classmethod
    def load(cls, name, path, data, splits, languages=(None, None)):
        """Load a model, and some splits of the data-bin ``data``.

        Args:
            splits: their names
            languages: source and target, if the model does not say; None infers them
        Raises:
            FileNotFoundError, ValueError: as for `load_models`; or the model is no translation
                model, was trained with other dictionaries than those of ``data``, or cannot
                take one of the sentences
        """
        first = checkpoint_paths(path)[0]
        _check_task(name, config_of(load_state(first), first).task)
        _check_dictionaries(name, first, data, languages)
        model = load_teacher(path, data, role=CANDIDATE, languages=languages)
        candidate = cls(name, path, model, [], None)
        if not candidate.is_refining:
            language_tokens_of(model.task)  # raises an error for a task that is not known
        candidate.splits = [candidate.load_split(split, data) for split in splits]
        candidate.dataset = concatenate_sources([one.dataset for one in candidate.splits])
        return candidate

    def load_split(self, split, data=None):
        """A split of its data-bin, a `PairSplit`, by name; errors as for `load`."""
        config = config_of_task(self.model.task)
        pair = config.source_lang, config.target_lang
        where = data or self.data, split
        sentences = PairSplit.load(self.model.task, *where, *pair, config.left_pad_source)
        _check_lengths(self, sentences)
        return sentences

    def set_text(self, remove_bpe=None, moses=None, spm_model=None):
        """Set how its tokens become text, see `Detokeniser`; Moses knows the source's language.

        Raises:
            FileNotFoundError, ValueError: as for `Detokeniser`
        """
        task = self.model.task
        self.detokenise = Detokeniser(task.target_dictionary, remove_bpe, moses, spm_model)
        moses = moses and self.languages[0]
        source = task.source_dictionary
        self.detokenise_source = Detokeniser(source, remove_bpe, moses, spm_model)

    @property
    def is_refining(self):
        """Whether it is non-autoregressive; such models have no beam."""
        return is_refining(self.model.task)

    @property
    def max_source_positions(self):
        """The longest source that it takes, in tokens with EOS."""
        return self.model.max_source_positions() - self.is_refining  # which adds BOS

    @property
    def data(self):
        """The data-bin."""
        return self.splits[0].folder

    @property
    def languages(self):
        """Source and target language."""
        return self.splits[0].source_lang, self.splits[0].target_lang

    @property
    def dictionary(self):
        """The target dictionary."""
        return self.model.task.target_dictionary

    @property
    def weights(self):
        """{name: tensor} of the parameters of all its models, each tensor once."""
        return {
            f"{number}.{name}": tensor
            for number, model in enumerate(self.model.models)
            for name, tensor in parameters_of(dict(model.named_parameters())).items()
        }

    @property
    def parameters(self):
        """The number of its parameters, each counted once."""
        return sum(tensor.numel() for tensor in self.weights.values())

    @property
    def checkpoint_bytes(self):
        """Size of the checkpoint files."""
        return sum(map(os.path.getsize, checkpoint_paths(self.path)))


def _check_task(name, config):
    if "target_lang" not in config:
        raise ValueError(
            f"--checkpoints: {name!r} is no translation model, its task is "
            f"{getattr(config, '_name', None)}. Expected text-to-text models. fairseq-eval-lm "
            "measures a language model's perplexity, fairseq-generate a speech model's "
            "BLEU or WER."
        )


def _check_dictionaries(name, path, data, languages):
    """Raise a ValueError if the model's own dictionaries, if found, are not the data's."""
    data_task = task_with_dictionaries_in(path, data, languages)
    model_task, folder = _task_with_own_dictionaries(path, languages_of(data_task))
    if model_task is None:
        return
    for side in ("source", "target"):
        ours, theirs = (getattr(task, f"{side}_dictionary") for task in (model_task, data_task))
        if ours.symbols != theirs.symbols:
            raise ValueError(
                f"--checkpoints: the {side} dictionary of {name!r}, in {folder!r}, is not that "
                f"of {data!r} ({len(ours)} symbols, expected {len(theirs)}). Binarise the same "
                f"text with its dictionaries, and add --data-of {name}=THAT-DATA-BIN."
            )


def _task_with_own_dictionaries(path, languages):
    """The model's task and the folder of its dictionaries; (None, None) if not found.

    They are looked for beside the checkpoint, then in the data-bin it was trained on.
    """
    recorded = getattr(config_of(load_state(path), path).task, "data", None) or ""
    # A relative path is relative to the folder where the training was started: not known here.
    folders = [os.path.dirname(os.path.abspath(path))] + [recorded] * os.path.isabs(recorded)
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            return task_with_dictionaries_in(path, folder, languages), folder
    return None, None


def _check_lengths(candidate, split):
    """Raise a ValueError if the split is empty or a source is too long for the model."""
    lengths = split.dataset.src_sizes
    if not len(lengths):
        raise ValueError(f"{split.folder!r} has no sentence in {split.name!r}")
    longest, limit = int(lengths.max()), candidate.max_source_positions
    if longest > limit:
        raise ValueError(
            f"--checkpoints: {candidate.name!r} takes at most {limit} source tokens, but line "
            f"{int(lengths.argmax()) + 1} of {split.name!r} in {split.folder!r} has {longest}. "
            "Expected a split without it."
        )
