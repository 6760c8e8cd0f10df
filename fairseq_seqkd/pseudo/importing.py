"""Makes a store from translations of another program."""

import logging
import os
from dataclasses import dataclass
from typing import List, Optional

import numpy as np

from fairseq_seqkd.chunked.plan import chunk_size
from fairseq_seqkd.io.files import sha256
from fairseq_seqkd.pseudo.collector import NBestCollector
from fairseq_seqkd.pseudo.store import PseudoTargetStore
from fairseq_seqkd.pseudo.text_encoder import TextEncoder
from fairseq_seqkd.pseudo.translation_files import (
    SourceCheck,
    is_fairseq_output,
    read_fairseq_output,
    read_plain_text,
)

logger = logging.getLogger(__name__)


@dataclass
class Translations:
    """The files to import, and their format.

    Attributes:
        files: fairseq-generate's output in one or several files; or one file of plain text
        nbest: lines per sentence in plain text
        spm_model: a sentencepiece model that cuts the text into subwords; None if it is cut
        format: ``fairseq`` or ``text``; ``auto`` looks for fairseq-generate's lines
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
        for path in [*self.files, *([self.spm_model] if self.spm_model else [])]:
            if not os.path.isfile(path):
                raise FileNotFoundError(f"no file {path!r}")
        self.is_fairseq_output = self.format == "fairseq" or (
            self.format == "auto" and self._looks_like_fairseq_output()
        )
        if not self.is_fairseq_output and len(self.files) > 1:
            raise ValueError(
                f"{len(self.files)} files of plain text: expected one, in the order of the "
                "split. Join them with cat."
            )

    def _looks_like_fairseq_output(self):
        plain = [path for path in self.files if not is_fairseq_output(path)]
        if plain and len(plain) < len(self.files):
            raise ValueError(
                f"{plain[0]!r} has no line of fairseq-generate's (H-0, ...) and other files "
                "have: import files of one format at a time"
            )
        return not plain

    def describe(self):
        """The manifest's entry ``import``."""
        return {
            "files": [sha256(path) for path in self.files],
            "format": "fairseq-generate" if self.is_fairseq_output else "plain text",
            "nbest": None if self.is_fairseq_output else self.nbest,
            "spm_model": self.spm_model and sha256(self.spm_model),
        }

    def hypotheses(self, split):
        """Yield (id, score, text) of every hypothesis; see ``translation_files.py``."""
        if not self.is_fairseq_output:
            yield from read_plain_text(self.files[0], self.nbest, split)
            return
        kind = "D" if self.spm_model else "H"
        check = SourceCheck(split, self.ignore_sources)
        found_mask = np.zeros(len(split), dtype=bool)
        for path in self.files:
            for id_, score, text in read_fairseq_output(path, kind, check):
                found_mask[id_] = True
                yield id_, score, text
        if not found_mask.any():
            raise ValueError(
                f"{', '.join(self.files)}: no {kind}- lines. Hypotheses are read from H- "
                "lines, with --spm-model from D- lines: let fairseq-generate print them (no "
                "--quiet)."
            )
        if not found_mask.all():
            numbers = found_mask.sum(), len(split)
            logger.warning("the import has translations of %d of the %d sentences", *numbers)


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
    encoder = TextEncoder(split.dataset.tgt_dict, translations.spm_model)
    folder = os.path.dirname(os.path.abspath(root))
    os.makedirs(folder, exist_ok=True)
    collector = NBestCollector(folder)
    for id_, score, text in translations.hypotheses(split):
        collector.add(id_, score, encoder(text))
    collector.sort()
    encoder.report()
    return collector
