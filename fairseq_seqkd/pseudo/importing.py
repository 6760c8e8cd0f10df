"""Makes a store from translations of another program."""

import logging
import os
from dataclasses import dataclass
from typing import List, Optional

import numpy as np

from fairseq_seqkd.chunked.plan import chunk_size
from fairseq_seqkd.io.files import sha256
from fairseq_seqkd.io.text import STDIN, TextFile
from fairseq_seqkd.pseudo.collector import NBestCollector
from fairseq_seqkd.pseudo.nbest_lists import read_nbest_list
from fairseq_seqkd.pseudo.store import PseudoTargetStore
from fairseq_seqkd.pseudo.text_encoder import TextEncoder, cut_translations
from fairseq_seqkd.pseudo.translation_files import (
    SourceCheck,
    format_of,
    read_fairseq_output,
    read_plain_text,
)

logger = logging.getLogger(__name__)


# {format: its name in manifests}
FORMATS = {"fairseq": "fairseq-generate", "nbest": "n-best list", "text": "plain text"}


@dataclass
class Translations:
    """The files to import, and their format.

    Attributes:
        files: paths as for `read_lines`: fairseq-generate's output or n-best lists, in one or
            several files; or one file of plain text
        nbest: lines per sentence in plain text
        spm_model: a sentencepiece model that cuts the text into subwords; None if it is cut
        format: a name in ``FORMATS``; ``auto`` recognises it
        ignore_sources: whether not to compare source lines with the split
    Raises:
        FileNotFoundError: names the file that does not exist
        ValueError: files of different formats, or several of plain text
    """

    files: List[str]
    nbest: int = 1
    spm_model: Optional[str] = None
    format: str = "auto"
    ignore_sources: bool = False

    def __post_init__(self):
        if self.nbest < 1:
            raise ValueError(f"--nbest is {self.nbest}, expected 1 or more lines per sentence")
        if self.spm_model and not os.path.isfile(self.spm_model):
            raise FileNotFoundError(f"no file {self.spm_model!r}")
        if list(self.files).count(STDIN) > 1:
            raise ValueError(f"{STDIN!r} twice: standard input can be read once")
        self._files = [TextFile(path) for path in self.files]
        if self.format == "auto":
            self.format = self._common_format()
        if self.format == "text" and len(self.files) > 1:
            raise ValueError(
                f"{len(self.files)} files of plain text: expected one, in the order of the "
                "split. Join them with cat."
            )

    def _common_format(self):
        formats = [format_of(file) for file in self._files]
        for file, other in zip(self._files, formats):
            if other != formats[0]:
                raise ValueError(
                    f"{self._files[0].name!r} is read as {FORMATS[formats[0]]}, {file.name!r} "
                    f"as {FORMATS[other]}: import files of one format at a time, or name it "
                    "with --format"
                )
        return formats[0]

    def describe(self):
        """The manifest's entry ``import``."""
        return {
            "files": [file.sha256() for file in self._files],
            "format": FORMATS[self.format],
            "nbest": self.nbest if self.format == "text" else None,
            "spm_model": self.spm_model and sha256(self.spm_model),
        }

    def hypotheses(self, split):
        """Yield (id, score, text) of every hypothesis; see ``translation_files.py``."""
        if self.format == "text":
            yield from read_plain_text(self._files[0], self.nbest, split)
            return
        check = SourceCheck(split, self.ignore_sources)
        found_mask = np.zeros(len(split), dtype=bool)
        for file in self._files:
            for id_, score, text in self._read(file, check, found_mask):
                found_mask[id_] = True
                yield id_, score, text
        self._check_found(found_mask)

    def _read(self, file, check, found_mask):
        if self.format == "nbest":
            return read_nbest_list(file, check, found_mask)
        return read_fairseq_output(file, self._kind, check)

    @property
    def _kind(self):
        return "D" if self.spm_model else "H"

    def _check_found(self, found_mask):
        names = ", ".join(file.name for file in self._files)
        if not found_mask.any() and self.format == "nbest":
            raise ValueError(f"{names}: no hypotheses")
        if not found_mask.any():
            raise ValueError(
                f"{names}: no {self._kind}- lines. Hypotheses are read from H- lines, with "
                "--spm-model from D- lines: let fairseq-generate print them (no --quiet)."
            )
        if not found_mask.all():
            numbers = found_mask.sum(), len(found_mask), np.flatnonzero(~found_mask)[0]
            logger.warning(
                "the import has translations of %d of the %d sentences; the first without is "
                "sentence %d (from 0)",
                *numbers,
            )


def import_store(root, split, translations):
    """Make a store from translations of another program.

    Args:
        root: the store's folder
        split: `PairSplit`
        translations: `Translations`
    Returns:
        the `PseudoTargetStore` with all its chunks
    Raises:
        ValueError: the text does not fit the split, or there is another store
    """
    collected = _collect(root, split, translations)
    store = PseudoTargetStore(root)
    store.create(
        {
            **split.describe(),
            "teacher": None,
            "import": translations.describe(),
            "search": {"nbest": collected.largest_nbest()},
            "engine": {"name": "import"},
            "chunk_size": chunk_size(len(split)),
        }
    )
    chunks = store.plan(split.dataset.src_sizes)
    for index in store.missing(len(chunks), check=range(len(chunks))):
        store.write_chunk(index, [collected.sentence(id_) for id_ in chunks[index].tolist()])
    return store


def _collect(root, split, translations):
    encoder = TextEncoder(split.dataset.tgt_dict, cut_translations(translations.spm_model))
    folder = os.path.dirname(os.path.abspath(root))
    os.makedirs(folder, exist_ok=True)
    collector = NBestCollector(folder)
    for id_, score, text in translations.hypotheses(split):
        collector.add(id_, score, encoder(text))
    collector.sort()
    encoder.report()
    return collector
