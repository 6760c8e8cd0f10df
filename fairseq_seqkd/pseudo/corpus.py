"""A split of gold data: what a store is made from, and what its data-bins replace."""

import os
from dataclasses import dataclass

from fairseq.data import LanguagePairDataset
from fairseq.tasks.translation import load_langpair_dataset

from fairseq_seqkd.shards import sha256


@dataclass
class GoldSplit:
    """One split of a binarised parallel corpus.

    Attributes:
        folder: the data-bin that fairseq-preprocess wrote
        name: the split, such as ``train``
        source_lang, target_lang: language codes
        dataset: the pairs, in the order of the split; a sentence's id is its place there
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
        split.prefix  # noqa: B018  (raises if there are no such files)
        split.dataset = load_langpair_dataset(
            folder,
            name,
            source_lang,
            src_dict,
            target_lang,
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
        ):
            prefix = f"{self.name}.{pair}"
            if os.path.exists(os.path.join(self.folder, f"{prefix}.{self.source_lang}.idx")):
                return prefix
        raise FileNotFoundError(
            f"{self.folder!r} has no binarised {self.name!r} split "
            f"({self.name}.{self.source_lang}-{self.target_lang}.*.idx): pseudo-targets "
            "need data from fairseq-preprocess without --dataset-impl raw"
        )

    def describe(self):
        """What identifies the data: the manifest's entries ``data`` and ``dictionaries``."""
        languages = (self.source_lang, self.target_lang)
        files = [f"{self.prefix}.{lang}.bin" for lang in languages]
        dictionaries = [f"dict.{lang}.txt" for lang in languages]
        return {
            "data": {
                "split": self.name,
                "pair": "-".join(languages),
                "sentences": len(self.dataset),
                "sha256": self._sums(files),
            },
            "dictionaries": self._sums(dictionaries),
        }

    def _sums(self, names):
        return {name: sha256(os.path.join(self.folder, name)) for name in names}
