"""Reads translations from files: fairseq-generate's output, or one hypothesis per line.

Both readers yield (id, score, text): a sentence's position in the split, its score in nats per
token (None in plain text) and a hypothesis.
"""

import logging
import math
import re

from fairseq_seqkd.io.text import text_lines

logger = logging.getLogger(__name__)

# S- source, T- gold, H- hypothesis, D- detokenised hypothesis, P- scores of its tokens.
_LINE = re.compile(r"([STHDPAI])-(\d{1,18})\t(.*)", re.DOTALL)
# A progress bar in the same file may stand in front of a line.
_AFTER_BAR = re.compile(r"(?<=[\r\]])[STHD]-\d{1,18}\t.*", re.DOTALL)
_WORD_MARK = "\N{LOWER ONE EIGHTH BLOCK}"  # sentencepiece puts it at a word's beginning


def is_fairseq_output(path):
    """Whether a file has a line like those of fairseq-generate."""
    return any(_parse(line) for _, line, _ in text_lines(path))


def read_fairseq_output(path, kind, check):
    """Yield (id, score, text) of fairseq-generate's hypotheses, in the order of the file.

    Lines may have any order; other log lines are ignored.

    Args:
        path: the file
        kind: ``H`` reads hypotheses as they are, ``D`` detokenised ones
        check: `SourceCheck`
    Raises:
        ValueError: a hypothesis without a score, or ``check`` fails
    """
    for number, line, is_ended in text_lines(path):
        match = _parse(line)
        if not match:
            continue
        if not is_ended:
            logger.warning("%s:%d was cut off and is ignored: %r", path, number, line[:80])
            continue
        letter, id_, rest = match[1], int(match[2]), match[3]
        if letter == "S":
            check.source(id_, rest, f"{path}:{number}")
        elif letter == kind:
            check.number(id_, path)
            yield (id_, *_score_and_text(rest, f"{path}:{number}"))


def read_plain_text(path, nbest, split):
    """Yield (id, None, text) of a file with ``nbest`` lines per sentence, best first.

    Raises:
        ValueError: the file does not have ``nbest`` lines for each sentence of the split
    """
    _check_line_count(path, nbest, split)
    for number, line, _ in text_lines(path):
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
    return re.sub(r"[\s@" + _WORD_MARK + r"]|&[a-z]+;|&#\d+;|\W", "", text)


def _check_line_count(path, nbest, split):
    found = sum(1 for _ in text_lines(path))
    expected = nbest * len(split)
    if found != expected:
        raise ValueError(
            f"{path!r} has {found} lines, expected {expected}: {nbest} for each of the "
            f"{len(split)} sentences of {split.name!r} in {split.folder!r}."
            f"{_first_mismatch(path, nbest, split)} Give one line per hypothesis, in the order "
            "of the split (--nbest N for N lines per sentence)."
        )


def _first_mismatch(path, nbest, split):
    """Describe the first line that is empty while its source is not, or the reverse."""
    lengths = split.dataset.src_sizes
    for number, line, _ in text_lines(path):
        id_ = (number - 1) // nbest
        if id_ < len(split) and (lengths[id_] <= 1) != (not line.strip()):
            kind = "empty" if lengths[id_] > 1 else "not empty"
            return (
                f" They are out of step at line {number} or earlier, which is {kind}, unlike "
                f"source line {id_ + 1}."
            )
    return ""
