"""Finds the line at which two parallel texts part, if one of them lacks lines."""

import numpy as np

_MAX_OFFSET = 8  # lines that may be missing in one place, besides all of them
_WINDOW = 9  # lines over which lengths are compared


def likely_line(lengths, others):
    """The number, from 1, of the line from which parallel lines no longer belong together.

    Sentences and their translations have lengths of about one ratio: it is the line before
    which lines of the same number fit best, and behind which those some lines further on do.

    Args:
        lengths, others: lengths of the lines of both texts, each in any unit; the texts have
            different numbers of lines
    Returns:
        the number; None if one text has no lines
    """
    shorter, longer = sorted((_logarithms(lengths), _logarithms(others)), key=len)
    size, missing = len(shorter), len(longer) - len(shorter)
    if not size:
        return None

    def distances(offset):
        return np.abs(shorter - longer[offset : offset + size])

    offsets = {*range(1, min(missing, _MAX_OFFSET) + 1), missing}
    further_on = np.min([_smooth(distances(offset)) for offset in offsets], axis=0)
    gain = np.cumsum(distances(0) - further_on)
    return int(np.concatenate([[0], gain]).argmin()) + 1


def where_they_part(lengths, others):
    """A sentence for an error message, from `likely_line`; empty if nothing can be said."""
    number = likely_line(lengths, others)
    return "" if number is None else f" They probably part near line {number}."


def _logarithms(lengths):
    """Logarithms of lengths, relative to the text's mean length."""
    lengths = np.asarray(lengths, dtype=np.float64) + 1
    return np.log(lengths / lengths.mean()) if len(lengths) else lengths


def _smooth(values):
    window = min(_WINDOW, len(values))
    return np.convolve(values, np.ones(window) / window, mode="same")
