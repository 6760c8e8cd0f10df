"""Faults of a translation that can be seen in its text: numbers lost, loops."""

import re
import unicodedata
from collections import Counter

_NUMBER = re.compile(r"\d+(?:[.,'\u2019\u202f\u00a0]\d+)*")
# A loop is a phrase of at most so many words, at least so often in a row.
MAX_PHRASE, MIN_REPEATS = 8, 3


def numbers_in(text):
    """The numbers of a text and how often each stands there, as a Counter.

    A number is its digits, in any script, without separators: 1,000 and 1.000 are the same.
    """
    return Counter(
        "".join(str(unicodedata.decimal(c)) for c in number if c.isdecimal())
        for number in _NUMBER.findall(text)
    )


def numbers_differ(source, translation):
    """Whether source and translation do not have the same numbers equally often."""
    return numbers_in(source) != numbers_in(translation)


def has_loop(text, reference=""):
    """Whether a phrase stands at least three times in a row, more often than in another text.

    Args:
        text: words separated by spaces
        reference: a text in which repetitions are no fault, such as the source
    Source: Raunak et al. 2021 (arXiv 2104.06683) call it an oscillatory hallucination.
    """
    repeats = longest_repeat(text)
    return repeats >= MIN_REPEATS and repeats > longest_repeat(reference)


def longest_repeat(text):
    """How often the most repeated phrase of at most ``MAX_PHRASE`` words stands in a row."""
    words, longest = text.split(), 0
    for size in range(1, min(MAX_PHRASE, len(words)) + 1):
        run = 0  # words that equal the one a phrase before
        for before, word in zip(words, words[size:]):
            run = run + 1 if before == word else 0
            longest = max(longest, run // size)
    return longest + bool(words)
