"""Reads n-best lists of Marian, Moses and the like: ``0 ||| text ||| F0= -1.5 ||| -1.5``."""

import logging
import math
import re

logger = logging.getLogger(__name__)

_SEPARATOR = re.compile(r"(?:^|(?<= ))\|\|\|(?= |$)")
_NUMBER = re.compile(r"\s*\d{1,18}\s*")
# A word of a field of features (F0= -1.5), word scores or alignments (0-0, 0.1,0.9, |0-1|).
_DETAIL = re.compile(r"\S*=\S*|[-+|,.:\deE]+|[-+]?(nan|inf)")
_EXPECTED = (
    "expected NUMBER ||| hypothesis ||| features ||| score, as Marian and Moses print it"
)


def parse_item(line):
    """The number, the score and the text of a hypothesis; None for any other line.

    The score is the last field that is one number.
    """
    number, *fields = _SEPARATOR.split(line)
    scores = [_as_score(field) for field in fields[1:]]
    found = [score for score in scores if score is not None]
    details = [word for field in fields[1:] for word in field.split()]
    if not _NUMBER.fullmatch(number) or not found or not all(map(_DETAIL.fullmatch, details)):
        return None
    return int(number), found[-1], fields[0].strip(" ")


def _as_score(field):
    try:
        score = float(field)
    except ValueError:
        return None
    return score if math.isfinite(score) else -math.inf


def read_nbest_list(file, check, found_mask):
    """Yield (id, score, text) of a list's hypotheses, in the order of the file.

    Sentences may have any order, but the hypotheses of each stand together.

    Args:
        file: `TextFile`
        check: `SourceCheck`
        found_mask: (sentences,) True where hypotheses were found, which the caller fills in
    Raises:
        ValueError: a line is no hypothesis, has a number that the split does not have, or one
            that other lines had before
    """
    last = None
    for line_number, line, is_ended in file.lines():
        location = f"{file.name}:{line_number}"
        if not is_ended:
            logger.warning("%s was cut off and is ignored: %r", location, line[:80])
            continue
        item = parse_item(line)
        if item is None:
            raise ValueError(
                f"{location}: found {line[:80]!r}, {_EXPECTED}. (Plain text: --format text.)"
            )
        check.number(item[0], location)
        if item[0] != last and found_mask[item[0]]:
            raise ValueError(
                f"{location}: sentence {item[0]} again, which has hypotheses further up or in "
                "another file. Expected each once: are these lists of parts, each counted from "
                "0? Then number them through."
            )
        last = item[0]
        yield item
