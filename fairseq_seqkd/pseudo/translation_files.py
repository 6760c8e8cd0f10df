"""Reads translations from files: fairseq-generate's output, or one hypothesis per line.

Both readers, and that of ``nbest_lists.py``, yield (id, score, text): a sentence's position in
the split, its score and a hypothesis. The score of fairseq-generate is in nats per token, that
of an n-best list is as listed, and plain text has none (None).
"""

import logging
import math
import re
from array import array

import numpy as np

from fairseq_seqkd.decoding.text import WORD_MARK
from fairseq_seqkd.io.line_counts import where_they_part
from fairseq_seqkd.pseudo.nbest_lists import parse_item

logger = logging.getLogger(__name__)

# S- source, T- gold, H- hypothesis, D- detokenised hypothesis, P- scores of its tokens.
_LINE = re.compile(r"([STHDPAI])-(\d{1,18})\t(.*)", re.DOTALL)
# A progress bar in the same file may stand in front of a line.
_AFTER_BAR = re.compile(r"(?<=[\r\]])[STHD]-\d{1,18}\t.*", re.DOTALL)


def format_of(file):
    """The format of a `TextFile`, by its first line of one: fairseq, nbest, or else text."""
    for _, line, _ in file.lines():
        if _parse(line):
            return "fairseq"
        if parse_item(line):
            return "nbest"
    return "text"


def read_fairseq_output(file, kind, check):
    """Yield (id, score, text) of fairseq-generate's hypotheses, in the order of the file.

    Lines may have any order; other log lines are ignored.

    Args:
        file: `TextFile`
        kind: ``H`` reads hypotheses as they are, ``D`` detokenised ones
        check: `SourceCheck`
    Raises:
        ValueError: a hypothesis without a score, or ``check`` fails
    """
    for number, line, is_ended in file.lines():
        location = f"{file.name}:{number}"
        match = _parse(line)
        if not match:
            continue
        if not is_ended:
            logger.warning("%s was cut off and is ignored: %r", location, line[:80])
            continue
        letter, id_, rest = match[1], int(match[2]), match[3]
        if letter == "S":
            check.source(id_, rest, location)
        elif letter == kind:
            check.number(id_, location)
            yield (id_, *_score_and_text(rest, location))


def read_plain_text(file, nbest, split):
    """Yield (id, None, text) of a file with ``nbest`` lines per sentence, best first.

    Raises:
        ValueError: the file does not have ``nbest`` lines for each sentence of the split
    """
    _check_line_count(file, nbest, split)
    for number, line, _ in file.lines():
        yield (number - 1) // nbest, None, line


def _parse(line):
    match = _LINE.match(line)
    if match:
        return match
    hidden = _AFTER_BAR.search(line)
    return hidden and _LINE.match(hidden[0])


def _score_and_text(rest, location):
    score, tab, text = rest.partition("\t")
    try:
        score = float(score) * math.log(2)  # fairseq-generate prints base 2
    except ValueError:
        tab = ""
    if not tab:
        raise ValueError(
            f"{location}: found {rest[:80]!r}, expected a score, a tab and the hypothesis, as "
            "fairseq-generate prints them"
        )
    return (score if math.isfinite(score) else -math.inf), text


class SourceCheck:
    """Refuses fairseq-generate's output of another split.

    Args:
        split: `PairSplit`
        ignore_sources: check the sentence numbers, but not the sources
    """

    def __init__(self, split, ignore_sources=False):
        self.split = split
        self.ignore_sources = ignore_sources

    def number(self, id_, location):
        """Refuse a sentence number that the split does not have."""
        if id_ >= len(self.split):
            raise ValueError(
                f"{location}: sentence {id_}, but {self.split.name!r} in {self.split.folder!r} "
                f"has {len(self.split)} (from 0). Was it translated from another split?"
            )

    def source(self, id_, text, location):
        """Refuse a source line that differs from the split's sentence of that number."""
        self.number(id_, location)
        if self.ignore_sources:
            return
        dataset = self.split.dataset
        expected = dataset.src_dict.string(dataset.src[id_])
        # fairseq-generate --replace-unk prints words in place of unknown symbols.
        if dataset.src_dict.unk_word not in expected and _letters(expected) != _letters(text):
            raise ValueError(
                f"{location}: sentence {id_} is {text[:80]!r} there, and {expected[:80]!r} in "
                f"{self.split.name!r} of {self.split.folder!r}: translated from other data, or "
                "in another order. (--ignore-sources, if it is the same and looks different.)"
            )


def _letters(text):
    """A text without the characters that subwords and tokenisers add or remove."""
    return re.sub(r"[\s@" + WORD_MARK + r"]|&[a-z]+;|&#\d+;|\W", "", text)


def _check_line_count(file, nbest, split):
    lengths = array("i", (len(line) for _, line, _ in file.lines()))
    expected = nbest * len(split)
    if len(lengths) != expected:
        raise ValueError(
            f"{file.name!r} has {len(lengths)} lines, expected {expected}: {nbest} for each of "
            f"the {len(split)} sentences of {split.name!r} in {split.folder!r}."
            f"{where_they_part(lengths, np.repeat(split.dataset.src_sizes, nbest))} Give one "
            "line per hypothesis, in the order of the split (--nbest N: N lines per sentence)."
        )
