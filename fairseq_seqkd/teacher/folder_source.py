"""The source that a teacher reads in another data-bin, found by the number of a sentence."""

import os
from dataclasses import dataclass, field
from typing import Any, Dict

import numpy as np
import torch
from fairseq import utils
from fairseq.data import Dictionary, LanguagePairDataset, data_utils

from fairseq_seqkd.models.data_folders import (
    describe_dictionary,
    pair_prefix,
)
from fairseq_seqkd.models.datasets import data_sha256, joins_at_random, random_access
from fairseq_seqkd.models.dictionaries import first_difference
from fairseq_seqkd.models.language_tokens import config_of_task, languages_of


@dataclass
class FolderSource:
    """The teacher reads the source that a sentence has in another data-bin.

    A sentence of the student's split and one of the data-bin's are the same if they have the
    same number.

    Attributes:
        folder: the data-bin
        task: the teacher's, with the dictionary of its source
        student_task: its loaded splits are compared with the data-bin's at once
        longest: the most tokens of a source that the teacher takes
    Raises:
        FileNotFoundError, ValueError: see `open_source`
    """

    folder: str
    task: Any
    student_task: Any
    longest: int
    _sources: Dict[str, LanguagePairDataset] = field(default_factory=dict)

    shared_sides = ("target",)

    def __post_init__(self):
        self._check_one_data_bin()
        self._check_dictionary()
        for name, dataset in self._student_splits.items():
            self._open(name, len(dataset))
            _check_fixed(dataset)

    def _check_one_data_bin(self):
        data = getattr(config_of_task(self.student_task), "data", None) or ""
        if self._student_splits and len(utils.split_paths(data)) > 1:
            raise ValueError(
                f"--teacher-source {self.folder!r} with {data!r}: expected one data-bin, in "
                "which the number of a sentence identifies it. Binarise them as one, or give "
                "fairseq-seqkd cache or generate each of them with its own teacher source."
            )

    def _check_dictionary(self):
        """Refuse a data-bin whose ids are of other symbols than the teacher's."""
        path = os.path.join(self.folder, f"dict.{languages_of(self.task)[0]}.txt")
        if not os.path.exists(path):
            return
        found, expected = Dictionary.load(path), self.task.source_dictionary
        difference = first_difference(expected.symbols, found.symbols)
        if difference is not None and difference[0] < len(found):
            index, of_teacher, of_folder = difference
            raise ValueError(
                f"--teacher-source: {path!r} ({len(found)} symbols) is not the teacher's "
                f"source dictionary ({len(expected)} symbols): at index {index} the teacher "
                f"has {of_teacher}, the file {of_folder}. Binarise the teacher's sources with "
                "its own dictionary (fairseq-preprocess --srcdict). If this is not the "
                "teacher's, name the folder that holds it with --teacher-data."
            )

    @property
    def _student_splits(self):
        return getattr(self.student_task, "datasets", {})

    def inputs(self, sample, training=True):
        """See `Teacher.inputs_of`.

        Raises:
            ValueError: a source is too long for the teacher
        """
        ids, contexts = sample["id"].tolist(), sample["net_input"]["prev_output_tokens"]
        dataset = self._open(self._split_of(sample, ids, training))
        sources = [dataset.src[id_] for id_ in ids]
        self._check_lengths(ids, sources)
        pad, eos = dataset.src_dict.pad(), dataset.src_dict.eos()
        tokens = data_utils.collate_tokens(sources, pad, eos, dataset.left_pad_source)
        return {
            "src_tokens": tokens.to(contexts.device),
            "src_lengths": torch.tensor([len(one) for one in sources], device=contexts.device),
            "prev_output_tokens": contexts,
        }

    def _check_lengths(self, ids, sources):
        for id_, source in zip(ids, sources):
            if len(source) > self.longest:
                raise ValueError(
                    f"--teacher-source {self.folder!r}: the source of sentence {id_} has "
                    f"{len(source)} tokens, and the teacher takes {self.longest}. Shorten it "
                    "there, or take a teacher with a larger --max-source-positions."
                )

    def _split_of(self, sample, ids, training):
        """The name of a batch's split.

        In training that is the training split; but a data-parallel process that has run out of
        batches repeats one of the last validation, whose loss fairseq ignores. In validation
        several splits may be loaded, of which the targets tell the one.
        """
        splits, highest = self._student_splits, max(ids)
        train = getattr(config_of_task(self.student_task), "train_subset", None) or "train"
        fitting = [name for name in splits if highest < len(splits[name])]
        names = [name for name in fitting if (name == train) == training] or fitting
        if len(names) > 1:
            pad, target = self.student_task.target_dictionary.pad(), sample["target"][0]
            target = target[target.ne(pad)].cpu()
            names = [name for name in names if _has_target(splits[name], ids[0], target)]
        if not names:
            raise ValueError(
                f"--teacher-source {self.folder!r}: sentence {highest} is in no split of the "
                f"student's task that is loaded: {', '.join(splits) or 'none is'}."
            )
        return names[0]

    def _open(self, split, expected=None):
        """The sources of a split, a LanguagePairDataset without targets.

        Args:
            expected: the number of the student's sentences; None: as many as there are
        """
        if split not in self._sources:
            self._sources[split] = self._load(split)
        found = len(self._sources[split])
        check_same_number(self.folder, split, found, found if expected is None else expected)
        return self._sources[split]

    def _load(self, split):
        prefix, dictionary = self.prefix(split), self.task.source_dictionary
        source = random_access(data_utils.load_indexed_dataset(prefix, dictionary))
        left_pad = getattr(config_of_task(self.task), "left_pad_source", True)
        return LanguagePairDataset(
            *(source, np.array(source.sizes), dictionary),
            tgt_dict=self.task.target_dictionary,
            left_pad_source=left_pad,
        )

    def prefix(self, split):
        """The path of a split's source files, without suffix.

        Raises:
            FileNotFoundError: there is no such split
        """
        source_lang, target_lang = languages_of(self.task)
        try:
            pair = pair_prefix(self.folder, split, source_lang, target_lang)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"--teacher-source: {error}") from error
        return os.path.join(self.folder, f"{pair}.{source_lang}")

    def describe(self, split):
        """The manifest's entry ``teacher_source``: the file of a split, and its dictionary."""
        path, dictionary = self.prefix(split) + ".bin", self.task.source_dictionary
        sums = {os.path.basename(path): data_sha256(path, len(dictionary))}
        return {"sha256": sums, "dictionary": describe_dictionary(dictionary)}

    def pairs(self, split, targets, sizes, dictionary):
        """The teacher's sources of a split, with the student's targets.

        Args:
            split: its name
            targets: (length,) token ids of each sentence
            sizes: (sentences,) their lengths
            dictionary: of the targets
        Returns:
            a LanguagePairDataset, from whose batches the teacher scores targets
        """
        sources = self._open(split, len(targets))
        return LanguagePairDataset(
            *(sources.src, sources.src_sizes, sources.src_dict),
            *(targets, sizes, dictionary),
            left_pad_source=sources.left_pad_source,
            left_pad_target=False,
        )

    def sources(self, split, expected):
        """The teacher's sources of a split alone; ``expected`` is the student's number."""
        return self._open(split, expected)


def check_same_number(folder, split, found, expected):
    """Refuse a data-bin that has not as many sentences as the student.

    Args:
        folder, split: the data-bin, and the name of the split
        found, expected: its number of sentences, and the student's
    Raises:
        ValueError: names both numbers, and the first sentence that is missing
    """
    if found != expected:
        lacking = "the student's" if found > expected else "the data-bin's"
        raise ValueError(
            f"--teacher-source {folder!r}: its split {split!r} has {found} sentences, and the "
            f"student's {expected}: expected the same number. Sentence {min(found, expected)}, "
            f"counted from 0, is the first that {lacking} lacks. Binarise a text with a line "
            "for each of the student's sentences, in order."
        )


def _has_target(dataset, id_, target):
    item = dataset[id_]
    found = item["target"] if isinstance(item, dict) else item.target
    return torch.equal(found, target)


def _check_fixed(dataset):
    """Refuse a speech data set that joins utterances at random."""
    if joins_at_random(dataset):
        raise ValueError(
            "--teacher-source: the student's speech is joined at random (concataugment in its "
            "config.yaml), so that no source of one sentence fits. Leave that out."
        )
