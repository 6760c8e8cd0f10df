"""Splits of a data-bin as fairseq-preprocess wrote them: nothing cut, bucketed or appended."""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairseq import utils
from fairseq.tasks.translation import TranslationConfig, TranslationTask, load_langpair_dataset

from fairseq_seqkd.io.files import sha256
from fairseq_seqkd.models.loading import task_on


@dataclass
class Split:
    """One split of a data-bin; a sentence's id is its position in the split.

    Attributes:
        folder: the data-bin
        name: of the split, such as ``train``
        task: the fairseq task that has the dictionaries
        dataset: the sentences, as that task reads them
    """

    folder: str
    name: str
    task: Any
    dataset: Any

    def __len__(self):
        return len(self.dataset)

    @classmethod
    def load_for_scoring(cls, teacher_path, folder, name):
        """The split as the task reads it that the teacher was trained with, whatever task.

        Raises:
            FileNotFoundError: the folder, the split or a dictionary is not there
            ValueError: several folders or files, so that an id tells no sentence; or the
                sentences have no targets to score
        """
        folder = plain_folder(folder, name)
        if not files_of(folder, name):
            raise FileNotFoundError(
                f"{folder!r} has no split {name!r} (no file whose name begins with "
                f"{name + '.'!r}): expected a data-bin that fairseq-preprocess wrote"
            )
        task = task_on(teacher_path, folder)
        task.load_dataset(name)
        split = cls(folder, name, task, task.dataset(name))
        split.check_targets()
        return split

    def check_targets(self):
        """Raise a ValueError unless every sentence has a target made of symbols."""
        first = self.dataset[0]
        if not isinstance(first, dict):
            raise ValueError(
                f"the data set of the task {type(self.task).__name__} cannot be cached: "
                "expected sentences with a source and a target of symbols, or a text. Take "
                "--teacher-path in the training."
            )
        if first.get("target") is None:
            raise ValueError(
                f"the split {self.name!r} of {self.folder!r} has no targets, whose positions "
                "the teacher could score. Let it translate them (fairseq-seqkd generate), and "
                "name the data-bin that comes out."
            )

    def lengths(self):
        """(sentences,) sort keys that bring sentences of similar lengths together.

        Where the data set knows both sides, the target's length decides, and among equal
        ones the source's: a batch is padded least on both sides.
        """
        sides = [getattr(self.dataset, f"{side}_sizes", None) for side in ("tgt", "src")]
        if any(side is None for side in sides):
            return np.array([self.dataset.num_tokens(id_) for id_ in range(len(self))])
        target, source = (np.asarray(side, dtype=np.int64) for side in sides)
        return target * (source.max(initial=0) + 1) + source

    def target_tokens(self):
        """The number of all target tokens; an estimate where the data set does not say."""
        return int(np.sum(getattr(self.dataset, "tgt_sizes", self.dataset.sizes)))

    def describe(self):
        """What identifies the data: the manifest's entries ``data`` and ``dictionary``."""
        data = {"split": self.name, "sentences": len(self)}
        return {
            "data": {**data, "sha256": sums_of(self.folder, self.name)},
            "dictionary": describe_dictionary(self.task.target_dictionary),
        }


@dataclass
class PairSplit(Split):
    """A split of sentence pairs, or of sources alone.

    Its ``dataset`` is a LanguagePairDataset, whose ``tgt`` is None without gold targets.

    Attributes, beside those of `Split`:
        source_lang, target_lang: language codes
    """

    source_lang: str
    target_lang: str

    @classmethod
    def load(cls, task, folder, name, source_lang, target_lang, left_pad_source=True):
        """Read the split with the dictionaries of ``task``.

        Raises:
            FileNotFoundError: the folder has no such split
        """
        split = cls(folder, name, task, None, source_lang, target_lang)
        split.dataset = load_langpair_dataset(
            folder,
            name,
            source_lang,
            task.source_dictionary,
            split.prefix.split("-")[-1] if split.is_source_only else target_lang,
            task.target_dictionary,
            combine=False,
            dataset_impl=None,
            upsample_primary=-1,
            left_pad_source=left_pad_source,
            left_pad_target=False,
            max_source_positions=None,
            max_target_positions=None,
        )
        return split

    @property
    def has_gold(self):
        """Whether the sentences have gold targets."""
        return self.dataset.tgt is not None

    @property
    def is_source_only(self):
        """Whether it was binarised with ``--only-source`` and without a target language."""
        return self.prefix.endswith("-None")

    @property
    def prefix(self):
        """The beginning of this split's file names, such as ``train.de-en``.

        Raises:
            FileNotFoundError: the folder has no binarised split of that name
        """
        for pair in (
            f"{self.source_lang}-{self.target_lang}",
            f"{self.target_lang}-{self.source_lang}",
            f"{self.source_lang}-None",
        ):
            prefix = f"{self.name}.{pair}"
            if os.path.exists(os.path.join(self.folder, f"{prefix}.{self.source_lang}.idx")):
                return prefix
        raise FileNotFoundError(
            f"{self.folder!r} has no binarised {self.name!r} split "
            f"({self.name}.{self.source_lang}-{self.target_lang}.*.idx): pseudo-targets "
            "need data from fairseq-preprocess without --dataset-impl raw"
        )

    @property
    def languages(self):
        """The languages that it has files of: source and target, or source alone."""
        return [self.source_lang] + [self.target_lang] * self.has_gold

    def describe(self):
        """What identifies the data: the manifest's entries ``data`` and ``dictionaries``."""
        pair = (self.source_lang, self.target_lang)
        return {
            "data": {
                "split": self.name,
                "pair": "-".join(pair),
                "sentences": len(self),
                "sha256": self._sums(f"{self.prefix}.{lang}.bin" for lang in self.languages),
            },
            "dictionaries": self._sums(f"dict.{lang}.txt" for lang in pair),
        }

    def _sums(self, names):
        return {name: sha256(os.path.join(self.folder, name)) for name in names}


def plain_folder(folder, name):
    """The one data-bin that fairseq's ``data`` argument names.

    Raises:
        ValueError: several data-bins, or a second file of the split: there the position of a
            sentence would not identify it
    """
    paths = utils.split_paths(folder)
    if len(paths) > 1:
        raise ValueError(
            f"data is {folder!r}: expected one data-bin, found {len(paths)} separated by "
            "colons, in which the number of a sentence does not identify it. Binarise them as "
            "one."
        )
    if files_of(paths[0], name + "1"):
        raise ValueError(
            f"{folder!r} has {name}1 files, which fairseq appends to {name}: expected "
            f"{name} alone, in which the number of a sentence identifies it. Binarise them as "
            "one split (repeat lines for --upsample-primary)."
        )
    return paths[0]


def plain_split(task, folder, name, source_lang, target_lang, left_pad_source=True):
    """The `PairSplit` of one data-bin; raises as `plain_folder` and `PairSplit.load`."""
    folder = plain_folder(folder, name)
    return PairSplit.load(task, folder, name, source_lang, target_lang, left_pad_source)


def open_split(folder, name, source_lang=None, target_lang=None):
    """A `PairSplit` with a stock translation task, without any fairseq command.

    Args:
        folder: the data-bin
        name: the split
        source_lang, target_lang: None finds them in the file names
    Raises:
        FileNotFoundError: the folder, the split or a dictionary is not there
        ValueError: the languages cannot be told, or see `plain_split`
    """
    config = TranslationConfig(data=folder, source_lang=source_lang, target_lang=target_lang)
    first = utils.split_paths(folder)[0]
    if not os.path.isdir(first):
        raise FileNotFoundError(f"no folder {first!r}: expected a data-bin")
    if None in (source_lang, target_lang):
        config.source_lang, config.target_lang = _find_languages(
            first, source_lang, target_lang
        )
    for lang in (config.source_lang, config.target_lang):
        if not os.path.exists(os.path.join(first, f"dict.{lang}.txt")):
            raise FileNotFoundError(
                f"{first!r} has no dict.{lang}.txt. For data with sources alone, copy the "
                f"teacher's there: the student is to have the same {lang} symbols."
            )
    task = TranslationTask.setup_task(config)
    return plain_split(task, folder, name, config.source_lang, config.target_lang)


def _find_languages(folder, source_lang, target_lang):
    pairs = {
        tuple(name.split(".")[1].split("-"))
        for name in os.listdir(folder)
        if name.endswith(".idx") and name.count(".") == 3 and name.split(".")[1].count("-") == 1
    }
    both_ways = {way for pair in pairs for way in (pair, pair[::-1])}
    either = pairs if source_lang is target_lang is None else both_ways
    fitting = {
        (source, target)
        for source, target in either
        if source_lang in (None, source) and target_lang in (None, target)
        if "None" not in (source, target)
    }
    if len(fitting) == 1:
        return fitting.pop()
    raise ValueError(
        f"the languages of {folder!r} cannot be told from its files (found "
        f"{sorted('-'.join(pair) for pair in pairs)}): give --source-lang and --target-lang"
    )


def files_of(folder, split):
    """The names of a split's files."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if name.startswith(split + "."))


def sums_of(folder, split):
    """{name: SHA-256} of a split's files; of binarised ones without their indices."""
    names = files_of(folder, split)
    names = [name for name in names if name.endswith(".bin")] or names
    return {name: sha256(os.path.join(folder, name)) for name in names}


def describe_dictionary(dictionary):
    """A dictionary's number of symbols, and the SHA-256 of them all."""
    symbols = "\n".join(dictionary.symbols).encode()
    return {"symbols": len(dictionary), "sha256": hashlib.sha256(symbols).hexdigest()}
