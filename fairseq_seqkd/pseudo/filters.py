"""Filters: rules that reject some of the selected hypotheses.

A filter is a function of `SelectedHypotheses` and a value; it returns a (rows,) mask of the
hypotheses that it rejects. ``FILTERS`` names them; flags and range checks follow.
"""

from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np

from fairseq_seqkd.io.text import TextFile
from fairseq_seqkd.pseudo import text_measures
from fairseq_seqkd.pseudo.external_scores import read_scores
from fairseq_seqkd.registry import flag


@dataclass(frozen=True)
class Filter:
    """A filter and its flag.

    Attributes:
        rejects: the function
        help: what it rejects, for ``--help``
        metavar: the name of its value there; None for a switch
        kind: the type of its value
        expected: the range of its value, in words
        is_valid: tests whether a value is in that range
        measure: a function of a `TextPair` whose value the filter needs of every pair
    """

    rejects: Callable
    help: str
    metavar: Optional[str] = None
    kind: Callable = float
    expected: str = ""
    is_valid: Callable[[Any], bool] = lambda value: True
    measure: Optional[Callable] = None


FILTERS = {}


def _filter(help, metavar=None, **options):
    """Decorator that registers a filter under the function's name."""

    def register(function):
        FILTERS[function.__name__] = Filter(function, help, metavar, **options)
        return function

    return register


@_filter(
    "source or target is more than R times as long as the other",
    "R",
    expected="1 or more, such as 3",
    is_valid=lambda limit: limit >= 1,
)
def length_ratio(selected, limit):
    """Source or target is more than ``limit`` times as long as the other, without EOS."""
    source = np.maximum(selected.source_lengths - 1, 1)
    target = np.maximum(selected.target_lengths - 1, 1)
    return np.maximum(source / target, target / source) > limit


PERCENT = {
    "expected": "above 0 and below 100, such as 5",
    "is_valid": lambda percent: 0 < percent < 100,
}


@_filter("the teacher's score is among the worst P percent, such as 5", "P", **PERCENT)
def score_percentile(selected, percent):
    """The teacher's normalised score is among the worst ``percent`` of all sentences.

    Source: Bergamot's training pipeline drops the worst 5 %.
    """
    return _worst(selected, selected.scores, percent)


def _worst(selected, scores, percent):
    translated = scores[selected.translated_mask]
    if not len(translated):
        return np.zeros(len(scores), dtype=bool)
    return scores < np.percentile(translated, percent)


@_filter(
    "its sentence chrF against gold is below X, such as 20",
    "X",
    expected="above 0 and up to 100, such as 20",
    is_valid=lambda limit: 0 < limit <= 100,
    measure=text_measures.gold_chrf,
)
def gold_chrf(selected, limit):
    """The chrF against gold is below ``limit``; without gold nothing is rejected."""
    return selected.measures["gold_chrf"] < limit


@_filter(
    "source and translation do not have the same numbers", measure=text_measures.lost_numbers
)
def numbers(selected, enabled):
    """Source and translation do not have the same numbers, equally often."""
    return (selected.measures["numbers"] > 0) & bool(enabled)


@_filter(
    "it repeats a phrase three times or more, and the source does not",
    measure=text_measures.loops,
)
def loops(selected, enabled):
    """A phrase stands in a row three times or more, and more often than in the source."""
    return (selected.measures["loops"] > 0) & bool(enabled)


@_filter("the translation equals the source")
def copies(selected, enabled):
    """The hypothesis is the source, symbol by symbol."""
    return selected.copy_mask & bool(enabled)


@_filter("the same source and translation occur earlier")
def duplicates(selected, enabled):
    """An earlier sentence of the split has the same source and the same hypothesis."""
    first = np.zeros(len(selected.pair_hashes), dtype=bool)
    first[np.unique(selected.pair_hashes, return_index=True)[1]] = True
    return ~first & bool(enabled)


class PairScores:
    """The value of ``--filter-scores``: scores of pairs by an outside model.

    Args:
        path: a file with one number per pair, in the order of the data-bin without filters
        percent: how many percent of the worst go
    Raises:
        FileNotFoundError: there is no such file
        ValueError: no percentile, or one out of its range
    """

    def __init__(self, path, percent):
        if percent is None or not PERCENT["is_valid"](percent):
            raise ValueError(
                f"--filter-percentile is {percent}, expected {PERCENT['expected']}: so many "
                "percent of the pairs go, those with the lowest --filter-scores"
            )
        self.file, self.percent = TextFile(path), percent

    @property
    def settings(self):
        """The entry of ``target_spec.json``."""
        return {"sha256": self.file.sha256(), "percentile": self.percent}

    def of_rows(self, selected):
        """(rows,) scores, NaN where there is no pair.

        Raises:
            ValueError: a line is no number, or their count is another than that of the pairs
        """
        rows = np.flatnonzero(selected.pair_mask)
        numbers = np.fromiter((score for _, score, _ in read_scores(self.file)), np.float64)
        if len(numbers) != len(rows):
            raise ValueError(_wrong_count(self.file, numbers, rows, selected.keep))
        scores = np.full(len(selected.scores), np.nan)
        scores[rows] = numbers
        return scores


def _wrong_count(file, numbers, rows, keep):
    parts = f"line {len(rows) + 1} is the first too many"
    if len(numbers) < len(rows):
        id_ = rows[len(numbers)] // keep
        parts = f"line {len(numbers) + 1} would be a pair of sentence {id_} of the data"
    return (
        f"--filter-scores: {file.name!r} has {len(numbers)} scores, and the data-bin without "
        f"filters {len(rows)} pairs; {parts}. Expected one number per pair, in its order."
    )


@_filter(
    "a score of every pair by any outside model, one number per line in the order of the "
    "data-bin without filters: those among the worst --filter-percentile percent",
    "FILE",
    kind=str,
)
def scores(selected, pair_scores):
    """An outside model's score is among the worst of all pairs."""
    return _worst(selected, pair_scores.of_rows(selected), pair_scores.percent)


def filter_flag(name):
    """The flag of a filter."""
    return flag(f"filter_{name}")


def check_filters(filters):
    """Refuse values out of range.

    Args:
        filters: {name in ``FILTERS``: value}; None or False disables a filter
    Raises:
        ValueError: names the flag, its value and the range
    """
    for name, value in filters.items():
        known = FILTERS[name]
        if value is not None and known.expected and not known.is_valid(value):
            raise ValueError(f"{filter_flag(name)} is {value}, expected {known.expected}")


def measures_of(filters):
    """{name of a filter: the function of a `TextPair` that it needs} of the enabled ones."""
    return {
        name: FILTERS[name].measure
        for name, value in filters.items()
        if value and FILTERS[name].measure
    }


def apply_filters(selected, filters):
    """Find the first filter that rejects each hypothesis.

    Args:
        selected: `SelectedHypotheses`
        filters: as for `check_filters`
    Returns:
        (rows,) indices into ``FILTERS``, -1 where no filter rejects
    """
    rejected_by = np.full(len(selected.scores), -1, dtype=np.int8)
    for index, (name, known) in enumerate(FILTERS.items()):
        if filters.get(name):
            rejected = known.rejects(selected, filters[name]) & selected.translated_mask
            rejected_by[rejected & (rejected_by < 0)] = index
    return rejected_by
