"""Makes a store of translations that came from elsewhere."""

import logging
import math
import os
import re
import tempfile
from array import array
from dataclasses import dataclass
from typing import List, Optional

import numpy as np
import sentencepiece

from fairseq_seqkd.chunked.plan import chunk_size
from fairseq_seqkd.io.files import naming, sha256
from fairseq_seqkd.io.text import text_lines
from fairseq_seqkd.pseudo.fairseq_output import (
    is_fairseq_output,
    read_fairseq_output,
    read_plain,
)
from fairseq_seqkd.pseudo.generate import nbest
from fairseq_seqkd.pseudo.store import NBest, PseudoTargetStore

logger = logging.getLogger(__name__)

# Above this share of unknown symbols something is wrong with the subwords.
_UNKNOWN_IS_SUSPICIOUS = 0.001
_PIECE = "\N{LOWER ONE EIGHTH BLOCK}"  # sentencepiece's mark of a word's beginning


@dataclass
class Import:
    """What is imported, and how it is read.

    Attributes:
        files: fairseq-generate's output, in one file or many; or one file of plain text
        nbest: lines a sentence, of plain text
        spm_model: a sentencepiece model that cuts text into subwords; None: it is cut
        format: ``fairseq`` or ``text``; ``auto`` looks for fairseq-generate's lines
        ignore_sources: whether not to compare source lines with the split
    Raises:
        FileNotFoundError: names the file that is not there
        ValueError: files that do not go together
    """

    files: List[str]
    nbest: int = 1
    spm_model: Optional[str] = None
    format: str = "auto"
    ignore_sources: bool = False

    def __post_init__(self):
        if self.nbest < 1:
            raise ValueError(f"--nbest is {self.nbest}, expected 1 or more lines a sentence")
        for path in [*self.files, *([self.spm_model] if self.spm_model else [])]:
            if not os.path.isfile(path):
                raise FileNotFoundError(f"no file {path!r}")
        self.is_fairseq_output = self.format == "fairseq" or (
            self.format == "auto" and self._looks_like_fairseq_output()
        )
        if not self.is_fairseq_output and len(self.files) > 1:
            raise ValueError(
                f"{len(self.files)} files of plain text: expected one, in the order of the "
                "split. Put them one after the other with cat."
            )

    def _looks_like_fairseq_output(self):
        plain = [path for path in self.files if not is_fairseq_output(path)]
        if plain and len(plain) < len(self.files):
            raise ValueError(
                f"{plain[0]!r} has no line of fairseq-generate's (H-0, ...) and other files "
                "have: import files of one kind at a time"
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


def import_store(root, split, source):
    """Make a store of translations from elsewhere.

    Args:
        root: the store's folder
        split: `Split`
        source: `Import`
    Returns:
        the `PseudoTargetStore`, with all its chunks
    Raises:
        ValueError: the text does not fit the split, or another store is there
    """
    encoder = Encoder(split.dataset.tgt_dict, source.spm_model)
    folder = os.path.dirname(os.path.abspath(root))
    os.makedirs(folder, exist_ok=True)
    records = Records(folder)
    for id_, score, text in _read(source, split):
        records.add(id_, score, encoder(text))
    records.sort()
    encoder.report()
    store = PseudoTargetStore(root)
    store.create(
        {
            **split.describe(),
            "teacher": None,
            "import": source.describe(),
            "search": {"nbest": records.most_a_sentence},
            "engine": {"name": "import"},
            "chunk_size": chunk_size(len(split)),
        }
    )
    chunks = store.plan(split.dataset.src_sizes)
    store.chunks.remove_damaged(range(len(chunks)))
    for index in store.chunks.missing(len(chunks)):
        store.write_chunk(index, [records.sentence(id_) for id_ in chunks[index].tolist()])
    return store


def _read(source, split):
    if not source.is_fairseq_output:
        _check_line_count(source, split)
        yield from read_plain(source.files[0], source.nbest)
        return
    kind = "D" if source.spm_model else "H"
    check = SourceCheck(split, source.ignore_sources)
    there = np.zeros(len(split), dtype=bool)
    for path in source.files:
        for id_, score, text in read_fairseq_output(path, kind, check):
            check.number(id_, path)
            there[id_] = True
            yield id_, score, text
    if not there.any():
        raise ValueError(
            f"{', '.join(source.files)}: no {kind}- lines. Hypotheses are read from H- lines, "
            "with --spm-model from D- lines: let fairseq-generate print them (no --quiet)."
        )
    if not there.all():
        logger.warning(
            "the import has translations of %d of the %d sentences", there.sum(), len(split)
        )


def _check_line_count(source, split):
    path, expected = source.files[0], source.nbest * len(split)
    lengths = split.dataset.src_sizes
    found, parted = 0, None
    for number, line, _ in text_lines(path):
        found = number
        id_ = (number - 1) // source.nbest
        if parted is None and id_ < len(split) and (lengths[id_] <= 1) != (not line.strip()):
            parted = number
    if found != expected:
        where = ""
        if parted is not None:
            id_ = (parted - 1) // source.nbest
            empty = "an empty" if lengths[id_] <= 1 else "no empty"
            where = (
                f" They part at line {parted} at the latest: {empty} source line {id_ + 1} "
                "stands against it."
            )
        raise ValueError(
            f"{path!r} has {found} lines, expected {expected}: {source.nbest} for each of the "
            f"{len(split)} sentences of {split.name!r} in {split.folder!r}.{where} Give one "
            "line a hypothesis, in the order of the split (--nbest N for N lines a sentence)."
        )


class SourceCheck:
    """Refuses fairseq-generate's output when it is of another split.

    Args:
        split: `Split`
        ignore_sources: look at the numbers alone
    """

    def __init__(self, split, ignore_sources=False):
        self.split = split
        self.ignore_sources = ignore_sources

    def number(self, id_, place):
        """Refuse the number of a sentence that the split does not have."""
        if id_ >= len(self.split):
            raise ValueError(
                f"{place}: sentence {id_}, but {self.split.name!r} in {self.split.folder!r} "
                f"has {len(self.split)} (from 0). Was it translated from another split?"
            )

    def __call__(self, id_, text, place):
        """Refuse a source line that is not the split's sentence of that number."""
        self.number(id_, place)
        if self.ignore_sources:
            return
        dataset = self.split.dataset
        ours = dataset.src_dict.string(dataset.src[id_])
        # fairseq-generate --replace-unk prints the word in the place of the symbol.
        if dataset.src_dict.unk_word not in ours and _letters(ours) != _letters(text):
            raise ValueError(
                f"{place}: sentence {id_} is {text[:80]!r} there, and {ours[:80]!r} in "
                f"{self.split.name!r} of {self.split.folder!r}: translated from other data, or "
                "in another order. (--ignore-sources, if it is the same and looks different.)"
            )


def _letters(text):
    """A text without what subwords and tokenisers add or take away."""
    return re.sub(r"[\s@" + _PIECE + r"]|&[a-z]+;|&#\d+;|\W", "", text)


class Encoder:
    """Text to token ids, counting what the dictionary does not have.

    Args:
        dictionary: the target dictionary
        spm_model: a sentencepiece model, or None if the text is cut into subwords
    """

    def __init__(self, dictionary, spm_model=None):
        self.dictionary = dictionary
        self.pieces = spm_model and _load_pieces(spm_model)
        # Text that looks like a control symbol is text.
        self.control = {dictionary.bos(), dictionary.pad(), dictionary.eos()}
        self.tokens = self.unknown = 0

    def __call__(self, text):
        """(length,) token ids, with EOS."""
        cut = self.pieces is not None and _PIECE not in text
        symbols = self.pieces.encode(text, out_type=str) if cut else text.split()
        unknown = self.dictionary.unk()
        ids = [self.dictionary.index(symbol) for symbol in symbols]
        ids = [unknown if id_ in self.control else id_ for id_ in ids]
        self.tokens += len(ids)
        self.unknown += ids.count(unknown)
        return np.array([*ids, self.dictionary.eos()], dtype=np.int32)

    def report(self):
        """Say how much was unknown; a warning when it is suspicious."""
        fraction = self.unknown / max(self.tokens, 1)
        suspicious = fraction > _UNKNOWN_IS_SUSPICIOUS
        logger.log(
            logging.WARNING if suspicious else logging.INFO,
            "%d of %d symbols (%.2f %%) are not in the dictionary and became unknown%s",
            self.unknown,
            self.tokens,
            100 * fraction,
            ": is the text cut into the student's subwords? (--spm-model)"
            if suspicious
            else "",
        )


def _load_pieces(path):
    try:
        return sentencepiece.SentencePieceProcessor(model_file=path)
    except RuntimeError as error:
        raise ValueError(
            f"--spm-model: {path!r} is not a sentencepiece model (expected a .model file)"
        ) from error


class Records:
    """Hypotheses in any order, to be had again by sentence.

    Args:
        folder: where a nameless file keeps their tokens
    """

    def __init__(self, folder):
        self.folder = folder
        self.ids, self.scores, self.lengths = array("q"), array("d"), array("i")
        self.file = tempfile.TemporaryFile(dir=folder)

    def add(self, id_, score, tokens):
        """Add one hypothesis; without a score (None) it ranks behind those added before."""
        self.ids.append(id_)
        self.scores.append(math.nan if score is None else score)
        self.lengths.append(len(tokens))
        with naming(self.folder):
            self.file.write(tokens.tobytes())

    def sort(self):
        """All are there: sort them by sentence, and by score within it."""
        with naming(self.folder):
            self.file.flush()
        lengths = np.array(self.lengths, dtype=np.int64)
        offsets = 4 * (np.cumsum(lengths) - lengths)
        ids, scores = np.array(self.ids), np.array(self.scores)
        order = np.lexsort((-scores, ids))  # stable: equal ones stay as they came
        self.ids, self.scores = ids[order], scores[order]
        self.lengths, self.offsets = lengths[order], offsets[order]
        self.most_a_sentence = int(np.unique(ids, return_counts=True)[1].max(initial=0))

    def sentence(self, id_):
        """The `NBest` of a sentence; what was there twice is there once."""
        begin, end = np.searchsorted(self.ids, [id_, id_ + 1])
        if begin == end:
            return NBest(id_, "not in the import", [])
        found = {}
        for place in range(begin, end):
            size, offset = 4 * int(self.lengths[place]), int(self.offsets[place])
            raw = os.pread(self.file.fileno(), size, offset)
            score = float(self.scores[place])
            if score != -math.inf:  # how fairseq-generate prints that there is none
                found.setdefault(raw, (np.frombuffer(raw, np.int32), score))
        return nbest(id_, list(found.values()))
