"""Reads translations from text: fairseq-generate's output, or one hypothesis a line.

A record is (id, score, text): a sentence's place in the split, the score in nats a token
(None where the file has none) and the hypothesis.
"""

import logging
import math
import re

from fairseq_seqkd.io.text import text_lines

logger = logging.getLogger(__name__)

# S- source, T- gold, H- hypothesis, D- detokenised hypothesis, P- its tokens' scores.
_LINE = re.compile(r"([STHDPAI])-(\d{1,18})\t(.*)", re.DOTALL)
# A progress bar that was printed to the same file may stand before a line.
_AFTER_BAR = re.compile(r"(?<=[\r\]])[STHD]-\d{1,18}\t.*", re.DOTALL)


def is_fairseq_output(path):
    """Whether a file has a line as fairseq-generate prints them."""
    return any(_parse(line) for _, line, _ in text_lines(path))


def read_fairseq_output(path, kind, check_source):
    """Yield the records of fairseq-generate's output, in the order of the file.

    The order of its lines does not matter, and what else was logged is passed over.

    Args:
        path: the file
        kind: ``H`` for hypotheses as they are, ``D`` for detokenised ones
        check_source: called with id and text of every source line, and what to call it
    Raises:
        ValueError: a line that begins like a hypothesis and has no score
    """
    for number, line, ended in text_lines(path):
        match = _parse(line)
        if not match:
            continue
        if not ended:
            logger.warning("%s:%d was cut off, and is left out: %r", path, number, line[:80])
            continue
        found, id_, rest = match[1], int(match[2]), match[3]
        if found == "S":
            check_source(id_, rest, f"{path}:{number}")
        elif found == kind:
            yield (id_, *_score_and_text(rest, f"{path}:{number}"))


def read_plain(path, nbest):
    """Yield the records of a file with ``nbest`` lines a sentence, best first."""
    for number, line, _ in text_lines(path):
        yield (number - 1) // nbest, None, line


def _parse(line):
    match = _LINE.match(line)
    if match:
        return match
    hidden = _AFTER_BAR.search(line)
    return hidden and _LINE.match(hidden[0])


def _score_and_text(rest, place):
    score, tab, text = rest.partition("\t")
    try:
        score = float(score) * math.log(2)  # fairseq-generate prints base 2
    except ValueError:
        tab = ""
    if not tab:
        raise ValueError(
            f"{place}: found {rest[:80]!r}, expected a score, a tab and the hypothesis, as "
            "fairseq-generate prints them"
        )
    return (score if math.isfinite(score) else -math.inf), text
