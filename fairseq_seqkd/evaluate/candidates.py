"""The models that are compared, and the text that they translate."""

import contextlib
import os
from dataclasses import dataclass

from fairseq_seqkd.databin import PairSplit
from fairseq_seqkd.models.checkpoints import checkpoint_paths, config_of, load_state
from fairseq_seqkd.models.loading import task_on
from fairseq_seqkd.models.parameters import parameters_of
from fairseq_seqkd.teacher import Teacher, load_teacher


@dataclass
class Candidate:
    """A model and the split that it translates, in its own subwords.

    Attributes:
        name, path: what it is called, and its checkpoint (several are averaged)
        model: loaded, on the CPU
        split: `PairSplit`
    """

    name: str
    path: str
    model: Teacher
    split: PairSplit

    @classmethod
    def load(cls, name, path, data, split):
        """Load a model, and its split of the data-bin ``data``.

        Raises:
            FileNotFoundError, ValueError: as for
                `load_models`; it does not translate; or it
                was trained with other dictionaries than those of ``data``
        """
        first = checkpoint_paths(path)[0]
        _check_task(name, config_of(load_state(first), first).task)
        _check_dictionaries(name, first, data)
        model = load_teacher(path, data)
        config = model.task.cfg
        pair = config.source_lang, config.target_lang
        found = PairSplit.load(model.task, data, split, *pair, config.left_pad_source)
        _check_lengths(name, model, found)
        return cls(name, path, model, found)

    @property
    def dictionary(self):
        return self.model.task.target_dictionary

    @property
    def weights(self):
        """{name: tensor} of the parameters, each of them once, of all models together."""
        return {
            f"{number}.{name}": tensor
            for number, model in enumerate(self.model.models)
            for name, tensor in parameters_of(dict(model.named_parameters())).items()
        }

    @property
    def file_bytes(self):
        return sum(map(os.path.getsize, checkpoint_paths(self.path)))


def _check_task(name, config):
    if "target_lang" not in config:
        raise ValueError(
            f"--checkpoints: {name!r} does not translate, its task is "
            f"{getattr(config, '_name', None)}. (fairseq-eval-lm tells a language model's "
            "perplexity.)"
        )


def _check_dictionaries(name, path, data):
    """Refuse a model whose own dictionaries, if they are found, are not the data's."""
    wanted = task_on(path, data)
    recorded = getattr(config_of(load_state(path), path).task, "data", None) or ""
    # A relative path would be looked up from another folder than the one it was meant from.
    places = [os.path.dirname(os.path.abspath(path))] + [recorded] * os.path.isabs(recorded)
    for folder in places:
        with contextlib.suppress(FileNotFoundError):
            own = task_on(path, folder)
            break
    else:
        return
    for side in ("source", "target"):
        ours, theirs = (getattr(task, f"{side}_dictionary") for task in (own, wanted))
        if ours.symbols != theirs.symbols:
            raise ValueError(
                f"--checkpoints: the {side} dictionary of {name!r}, in {folder!r}, is not that "
                f"of {data!r} ({len(ours)} symbols, expected {len(theirs)}). Binarise the same "
                f"text with its dictionaries, and add --data-of {name}=THAT-DATA-BIN."
            )


def _check_lengths(name, model, split):
    """Refuse a split that has nothing to translate, or what a model cannot take."""
    lengths = split.dataset.src_sizes
    if not len(lengths):
        raise ValueError(f"{split.folder!r} has no sentence in {split.name!r}")
    longest, limit = int(lengths.max()), model.max_source_positions()
    if longest > limit:
        raise ValueError(
            f"--checkpoints: {name!r} reads at most {limit} tokens, but line "
            f"{int(lengths.argmax()) + 1} of {split.name!r} in {split.folder!r} has {longest}. "
            "Expected a split without it."
        )


def references_of(candidate, detokenise, file_name=None):
    """The references, one a line of the split, as text.

    Args:
        candidate: whose split's gold target is taken if there is no file
        detokenise: `Detokeniser`
        file_name: one reference a line
    Raises:
        ValueError: the lines are not as many as the split's, or there is no gold target
    """
    split = candidate.split
    if file_name is None:
        if not split.has_gold:
            raise ValueError(f"{split.folder!r} has sources alone: name the references, --ref")
        gold = (split.dataset.tgt[i].numpy() for i in range(len(split)))
        return [detokenise.reference(one) for one in gold]
    with open(file_name, encoding="utf-8") as lines:
        references = [line.rstrip("\n") for line in lines]
    if len(references) != len(split):
        raise ValueError(
            f"--ref: {os.fspath(file_name)!r} has {len(references)} lines, expected the "
            f"{len(split)} of {split.name!r} in {split.folder!r}"
        )
    return references
