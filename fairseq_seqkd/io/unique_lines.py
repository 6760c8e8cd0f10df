"""Finds the lines that a text repeats or that other texts have, by their 64-bit hashes.

Two different lines have one hash with a probability of 2**-64. Among n lines, one is taken for
another with a probability of n**2 / 2**65: 3 in a million among 10 million lines, 3 % among a
billion. That line is lost; nothing else happens.
"""

import hashlib
import tempfile

import numpy as np

from fairseq_seqkd.io.files import name_in_errors
from fairseq_seqkd.io.progress import progress_bar

KEPT, DUPLICATE, EXCLUDED = range(3)
_PARTS = 64


class UniqueLines:
    """The lines of some texts, each once, without empty ones and without those of other texts.

    Lines are equal if their words are: spaces at their ends and their number do not count. The
    texts are read twice; memory holds at most 12 bytes a line.

    Args:
        texts: list of `TextFile`
        excluded: list of `TextFile`, whose lines are left out
    Attributes:
        numbers: {reason: how many lines were left out for it}, of the lines iterated over
    """

    def __init__(self, texts, excluded=()):
        self.texts, self.excluded = texts, excluded
        self.numbers = {"duplicate": 0, "excluded": 0, "empty": 0}

    def __iter__(self):
        """Yield the first of each of the different lines, as it stands there.

        Raises:
            ValueError: a text changed while it was read
        """
        reasons = repeated_lines(
            hashes_of(progress_bar(_lines(self.texts), unit=" lines", desc="comparing")),
            np.unique(hashes_of(_lines(self.excluded))),
        )
        number, n_lines = 0, len(reasons)
        lines = progress_bar(_lines(self.texts), total=n_lines, unit=" lines", desc="cutting")
        for number, line in enumerate(lines, 1):
            reason = reasons[number - 1] if number <= n_lines else KEPT
            if not line or line.isspace():
                self.leave_out("empty")
            elif reason == KEPT:
                yield line
            else:
                self.leave_out("duplicate" if reason == DUPLICATE else "excluded")
        if number != n_lines:
            names = ", ".join(text.name for text in self.texts)
            raise ValueError(
                f"{names}: found {n_lines} lines, and then {number}. Expected text that "
                "does not change while it is read: wait until it is complete."
            )

    def leave_out(self, reason):
        """Count a line that is left out."""
        self.numbers[reason] += 1


def _lines(texts):
    return (line for text in texts for _, line, _ in text.lines())


def hashes_of(lines):
    """(lines,) 64-bit hashes of lines; memory holds these 8 bytes a line."""
    # In memory, an array that grows leaves holes behind.
    with tempfile.TemporaryFile() as file, name_in_errors(tempfile.gettempdir()):
        for line in lines:
            words = " ".join(line.split())
            file.write(hashlib.blake2b(words.encode(), digest_size=8).digest())
        file.seek(0)
        return np.fromfile(file, "<u8")


def repeated_lines(hashes, excluded):
    """Find the lines that stand further up or in another text; memory: 3 bytes a line.

    Args:
        hashes: (lines,) hashes
        excluded: (n,) hashes of the other text
    Returns:
        (lines,) ``KEPT``, ``DUPLICATE`` or ``EXCLUDED``, uint8
    """
    reasons = np.full(len(hashes), KEPT, np.uint8)
    part_of = hashes.view(np.uint8)[7::8] // (256 // _PARTS)  # by their uppermost bits
    for part in range(_PARTS):  # so that only a part is sorted at a time
        ids = np.flatnonzero(part_of == part)
        later_mask = np.ones(len(ids), bool)
        later_mask[np.unique(hashes[ids], return_index=True)[1]] = False
        reasons[ids[later_mask]] = DUPLICATE
        reasons[ids[np.isin(hashes[ids], excluded)]] = EXCLUDED
    return reasons
