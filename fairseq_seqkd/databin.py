"""Splits of a data-bin as fairseq-preprocess wrote them: no truncation, no bucketing."""

import os
from dataclasses import dataclass
from typing import Any, Dict, Optional

import numpy as np
from fairseq.tasks.translation import load_langpair_dataset

from fairseq_seqkd.compat import check_numpy
from fairseq_seqkd.io.files import sha256
from fairseq_seqkd.models.data_folders import (
    check_dictionaries,
    check_split,
    describe_dictionary,
    pair_prefix,
    shard_folders,
    single_folder,
    split_checksums,
)
from fairseq_seqkd.models.datasets import data_sha256, random_access
from fairseq_seqkd.models.language_tokens import is_multilingual
from fairseq_seqkd.models.loading import (
    open_task,
    task_name_of,
    task_with_dictionaries_in,
)
from fairseq_seqkd.models.sides import check_sides


@dataclass
class Split:
    """One split of a data-bin, of any task; a sentence's id is its position in the split.

    Attributes:
        folder: the data-bin
        name: the split's name, such as ``train``
        task: the fairseq task with the dictionaries
        dataset: the sentences, as that task loads them
    """

    folder: str
    name: str
    task: Any
    dataset: Any

    student_sources = None  # of each sentence, where the student reads another than the teacher

    def __len__(self):
        return len(self.dataset)

    @classmethod
    def load_for_scoring(cls, teacher_path, data, name, languages=(None, None)):
        """Load a split with the task that the teacher was trained with.

        For a multilingual teacher it is loaded as plain pairs of one direction.

        Args:
            teacher_path: checkpoint file, or several separated by colons
            data: the data-bin
            name: the split's name
            languages: source and target; None infers them from the file names, if the teacher
                does not say
        Raises:
            FileNotFoundError: the folder, the split or a dictionary does not exist
            ValueError: several folders or files, in which an id does not identify a
                sentence; the sentences have no targets to score; or see `check_sides` and
                `check_numpy`
        """
        single_folder(data, name)
        return next(cls.load_shards_for_scoring(teacher_path, data, name, languages))

    @classmethod
    def load_shards_for_scoring(cls, teacher_path, data, name, languages=(None, None)):
        """Yield a split of every data-bin in ``DATA1:DATA2``, as `load_for_scoring` loads it.

        Dictionaries are those of the first.
        """
        folders = shard_folders(data, name)
        for folder in folders:
            check_split(folder, name)
        if is_multilingual(task_name_of(teacher_path)):
            splits = map(DirectionSplit.from_pairs, open_shards(data, name, *languages))
        else:
            splits = (
                cls._load_with_task(teacher_path, folder, name, languages, folders[0])
                for folder in folders
            )
        for split in splits:
            split.check_targets()
            yield split

    @classmethod
    def _load_with_task(cls, teacher_path, folder, name, languages, dictionaries):
        check_dictionaries(folder, dictionaries)
        check_sides(folder, name)
        task = task_with_dictionaries_in(teacher_path, dictionaries, languages, folder)
        check_numpy(task)
        task.load_dataset(name)
        return cls(folder, name, task, random_access(task.dataset(name)))

    def check_targets(self):
        """Raise a ValueError unless every sentence has a target made of symbols."""
        sentence = self.dataset[0]
        if not isinstance(sentence, dict):
            raise ValueError(
                f"the data set of the task {type(self.task).__name__} cannot be cached: "
                "expected text, or pairs of a source and a target text. Train with "
                "--teacher-path instead."
            )
        if sentence.get("target") is None:
            raise ValueError(
                f"the split {self.name!r} of {self.folder!r} has no targets that the "
                "teacher could score. Translate it (fairseq-seqkd generate), and give the "
                "data-bin of the translations."
            )

    def max_positions(self):
        """The longest source and target that the task takes."""
        return self.task.max_positions()

    def length_sort_keys(self):
        """(sentences,) sort keys that put sentences of similar lengths next to each other.

        If the data set has the sizes of both sides, the key is the target's length, and
        among equal targets the source's, so that batches have little padding on both sides.
        """
        sizes = self._sizes()
        if len(sizes) == 1:
            return sizes[0]
        target, source = sizes
        return target * (source.max(initial=0) + 1) + source

    def token_counts(self):
        """(sentences,) tokens of source and target together."""
        return sum(self._sizes())

    def _sizes(self):
        """(sentences,) lengths of targets and sources; of one side, if it knows no other."""
        sides = [getattr(self.dataset, f"{side}_sizes", None) for side in ("tgt", "src")]
        if any(side is None for side in sides):
            sides = [[self.dataset.num_tokens(id_) for id_ in range(len(self))]]
        return [np.asarray(side, dtype=np.int64) for side in sides]

    def target_tokens(self, ids):
        """The number of some sentences' target tokens; an estimate if it has no such sizes."""
        sizes = getattr(self.dataset, "tgt_sizes", self.dataset.sizes)
        return int(np.sum(np.asarray(sizes)[ids]))

    def describe(self):
        """The manifest's entries ``data`` and ``dictionary``, which identify the split."""
        data = {"split": self.name, "sentences": len(self)}
        sums = split_checksums(self.folder, self.name, self.task)
        return {
            "data": {**data, "sha256": sums},
            "dictionary": describe_dictionary(self.task.target_dictionary),
        }


@dataclass
class DirectionSplit(Split):
    """A split of plain pairs of one direction, in a data-bin that may have others as well.

    Attributes, in addition to those of `Split`:
        direction: {"prefix"} of its file names, such as ``train.de-en``, and {"pair"}
    """

    direction: Dict[str, str]

    @classmethod
    def from_pairs(cls, pairs):
        """The pairs of a `PairSplit`, to be scored in its direction."""
        direction = {
            "prefix": pairs.prefix,
            "pair": f"{pairs.source_lang}-{pairs.target_lang}",
        }
        return cls(pairs.folder, pairs.name, pairs.task, pairs.dataset, direction)

    def describe(self):
        """As `Split.describe`, of the files of this direction."""
        described = super().describe()
        sha256 = split_checksums(self.folder, self.direction["prefix"], self.task)
        data = {**described["data"], **self.direction, "sha256": sha256}
        return {**described, "data": data}


@dataclass
class PairSplit(Split):
    """A split of sentence pairs, or of sources only.

    Its ``dataset`` is a LanguagePairDataset, whose ``tgt`` is None without gold targets.

    Attributes, in addition to those of `Split`:
        source_lang, target_lang: language codes
        dictionary_folder: where its dictionaries are, if not in ``folder``
    """

    source_lang: str
    target_lang: str
    dictionary_folder: Optional[str] = None

    @classmethod
    def load_shards(cls, task, data, name, *languages):
        """Yield the split of every data-bin in ``DATA1:DATA2``; dictionaries are the first's.

        Args:
            data: fairseq's ``data`` argument
            task, name, languages: as for `load`
        Raises:
            FileNotFoundError: as for `load`
            ValueError: see `shard_folders` and `check_dictionaries`
        """
        folders = shard_folders(data, name)
        for folder in folders:
            check_dictionaries(folder, folders[0])
            split = cls.load(task, folder, name, *languages)
            split.dictionary_folder = folders[0]
            yield split

    @classmethod
    def load(cls, task, folder, name, source_lang, target_lang, left_pad_source=True):
        """Load one file of a split with the dictionaries of a task.

        Args:
            task: has a ``source_dictionary`` and a ``target_dictionary``
            folder: the data-bin
            name: the split's name
            source_lang, target_lang: language codes
            left_pad_source: whether batches have their padding in front of the source
        Raises:
            FileNotFoundError: the folder has no such split
            ValueError: see `check_sides`
        """
        split = cls(folder, name, task, None, source_lang, target_lang)
        check_sides(folder, split.prefix)
        dataset = load_langpair_dataset(
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
        split.dataset = random_access(dataset)
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
        """The prefix of this split's file names; see `pair_prefix`."""
        return pair_prefix(self.folder, self.name, self.source_lang, self.target_lang)

    @property
    def languages(self):
        """The languages of its files: source and target, or the source only."""
        return [self.source_lang] + [self.target_lang] * self.has_gold

    def describe(self):
        """The manifest's entries ``data`` and ``dictionaries``, which identify the split."""
        files = [f"{self.prefix}.{lang}.bin" for lang in self.languages]
        return {
            "data": {
                "split": self.name,
                "pair": f"{self.source_lang}-{self.target_lang}",
                "sentences": len(self),
                "sha256": {
                    name: data_sha256(os.path.join(self.folder, name), self.vocab(lang))
                    for name, lang in zip(files, self.languages)
                },
            },
            "dictionaries": {
                os.path.basename(path): sha256(path) for path in self.dictionary_paths()
            },
        }

    def vocab(self, lang):
        """The size of a language's dictionary; None for another language."""
        if lang == self.source_lang:
            return len(self.task.source_dictionary)
        return len(self.task.target_dictionary) if lang == self.target_lang else None

    def dictionary_paths(self):
        """The files of its dictionaries: its own, or those of the first data-bin."""
        names = [f"dict.{lang}.txt" for lang in (self.source_lang, self.target_lang)]
        own = [os.path.join(self.folder, name) for name in names]
        first = [os.path.join(self.dictionary_folder or self.folder, name) for name in names]
        return [path if os.path.exists(path) else other for path, other in zip(own, first)]


def open_split(data, name, source_lang=None, target_lang=None):
    """Load a `PairSplit` with a stock translation task of its own.

    Args:
        data: the data-bin
        name: the split's name
        source_lang, target_lang: language codes; None infers them from the file names
    Raises:
        FileNotFoundError: the folder, the split or a dictionary does not exist
        ValueError: the languages cannot be inferred, or see `single_folder`
    """
    single_folder(data, name)
    return next(open_shards(data, name, source_lang, target_lang))


def open_shards(data, name, source_lang=None, target_lang=None):
    """Yield the `PairSplit` of every data-bin in ``DATA1:DATA2``, as `open_split` loads it."""
    task = open_task(data, source_lang, target_lang)
    languages = task.cfg.source_lang, task.cfg.target_lang
    yield from PairSplit.load_shards(task, data, name, *languages)
