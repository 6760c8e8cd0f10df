"""Filters: rules that reject some of the selected hypotheses.

A filter is a function of `SelectedHypotheses` and a value; it returns a (sentences,) mask of
the hypotheses that it rejects. ``FILTERS`` names them.
"""

import numpy as np


def length_ratio(selected, limit):
    """Source or target is more than ``limit`` times as long as the other, without EOS."""
    source = np.maximum(selected.source_lengths - 1, 1)
    target = np.maximum(selected.target_lengths - 1, 1)
    return np.maximum(source / target, target / source) > limit


def score_percentile(selected, percent):
    """The teacher's normalised score is among the worst ``percent`` of all sentences.

    Source: Bergamot's training pipeline drops the worst 5 %.
    """
    translated = selected.scores[selected.translated_mask]
    if not len(translated):
        return np.zeros(len(selected.scores), dtype=bool)
    return selected.scores < np.percentile(translated, percent)


def copies(selected, enabled):
    """The hypothesis is the source, symbol by symbol."""
    return selected.copy_mask & bool(enabled)


def duplicates(selected, enabled):
    """An earlier sentence of the split has the same source and the same hypothesis."""
    first = np.zeros(len(selected.pair_hashes), dtype=bool)
    first[np.unique(selected.pair_hashes, return_index=True)[1]] = True
    return ~first & bool(enabled)


FILTERS = {
    "length_ratio": length_ratio,
    "score_percentile": score_percentile,
    "copies": copies,
    "duplicates": duplicates,
}


def filter_flag(name):
    """The flag of a filter."""
    return f"--filter-{name.replace('_', '-')}"


def check_filters(filters):
    """Refuse values out of range.

    Args:
        filters: {name in ``FILTERS``: value}; None or False disables a filter
    Raises:
        ValueError: names the flag, its value and the range
    """
    ratio, percent = filters.get("length_ratio"), filters.get("score_percentile")
    if ratio is not None and not ratio >= 1:
        raise ValueError(f"--filter-length-ratio is {ratio}, expected 1 or more, such as 3")
    if percent is not None and not 0 < percent < 100:
        raise ValueError(
            f"--filter-score-percentile is {percent}, expected above 0 and below 100, such as 5"
        )


def apply_filters(selected, filters):
    """Find the first filter that rejects each hypothesis.

    Args:
        selected: `SelectedHypotheses`
        filters: as for `check_filters`
    Returns:
        (sentences,) indices into ``FILTERS``, -1 where no filter rejects
    """
    rejected_by = np.full(len(selected.scores), -1, dtype=np.int8)
    for index, (name, function) in enumerate(FILTERS.items()):
        if filters.get(name):
            rejected = function(selected, filters[name]) & selected.translated_mask
            rejected_by[rejected & (rejected_by < 0)] = index
    return rejected_by
