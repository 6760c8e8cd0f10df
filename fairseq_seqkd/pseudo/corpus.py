"""A split of a binarised corpus: what a store is made from, and what its data-bins replace."""

import os
from dataclasses import dataclass

from fairseq import utils
from fairseq.data import LanguagePairDataset
from fairseq.tasks.translation import TranslationConfig, TranslationTask, load_langpair_dataset

from fairseq_seqkd.shards import sha256


@dataclass
class Split:
    """One split of a data-bin.

    Attributes:
        folder: the data-bin that fairseq-preprocess wrote
        name: the split, such as ``train``
        source_lang, target_lang: language codes
        dataset: the sentences, in the order of the split; a sentence's id is its place
            there. Its ``tgt`` is None if the data has no gold targets.
    """

    folder: str
    name: str
    source_lang: str
    target_lang: str
    dataset: LanguagePairDataset

    @classmethod
    def load(cls, folder, name, source_lang, target_lang, src_dict, tgt_dict, left_pad_source):
        """The split as fairseq-preprocess wrote it: nothing cut, bucketed or appended.

        Raises:
            FileNotFoundError: the folder has no such split
        """
        split = cls(folder, name, source_lang, target_lang, dataset=None)
        split.dataset = load_langpair_dataset(
            folder,
            name,
            source_lang,
            src_dict,
            split.prefix.split("-")[-1] if split.is_source_only else target_lang,
            tgt_dict,
            combine=False,
            dataset_impl=None,
            upsample_primary=-1,
            left_pad_source=left_pad_source,
            left_pad_target=False,
            max_source_positions=None,
            max_target_positions=None,
        )
        return split

    def __len__(self):
        return len(self.dataset)

    @property
    def has_gold(self):
        return self.dataset.tgt is not None

    @property
    def is_source_only(self):
        """Whether it was binarised with ``--only-source`` and without a target language."""
        return self.prefix.endswith("-None")

    @property
    def has_continuation(self):
        """Whether fairseq would append a second file (``train1``) to this split."""
        second = f"{self.name}1" + self.prefix[len(self.name) :]
        return os.path.exists(os.path.join(self.folder, f"{second}.{self.source_lang}.idx"))

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


def plain_split(task, folder, name, source_lang, target_lang, left_pad_source=True):
    """The split of a task, refused where a line's number would not identify it.

    Args:
        task: has the dictionaries
        folder: fairseq's ``data`` argument
        name, source_lang, target_lang, left_pad_source: as for :meth:`Split.load`
    Raises:
        ValueError: several folders, or a second file of the split
        FileNotFoundError: there is no such split
    """
    paths = utils.split_paths(folder)
    if len(paths) > 1:
        raise ValueError(
            f"data is {folder!r}: pseudo-targets are kept for one data-bin, found "
            f"{len(paths)} separated by colons. Binarise them as one."
        )
    dictionaries = task.source_dictionary, task.target_dictionary
    split = Split.load(paths[0], name, source_lang, target_lang, *dictionaries, left_pad_source)
    if split.has_continuation:
        raise ValueError(
            f"{folder!r} has {name}1 files, which fairseq appends to {name}: "
            f"pseudo-targets are kept for {name} alone. Binarise them as one split "
            "(repeat lines for --upsample-primary)."
        )
    return split


def open_split(folder, name, source_lang=None, target_lang=None):
    """A split and a stock translation task for it, without any fairseq command.

    Args:
        folder: the data-bin
        name: the split
        source_lang, target_lang: None finds them in the file names
    Returns:
        the :class:`Split` and the task
    Raises:
        FileNotFoundError: the folder, the split or a dictionary is not there
        ValueError: the languages cannot be told, or see :func:`plain_split`
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
    return plain_split(task, folder, name, config.source_lang, config.target_lang), task


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
