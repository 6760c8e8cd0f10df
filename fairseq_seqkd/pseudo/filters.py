"""Which of the teacher's translations are not to be trusted.

A filter is a function from what is known of every sentence to the ones that it finds fault
with; ``FILTERS`` names them.
"""

import numpy as np


def length_ratio(selected, most):
    """Source or target is more than ``most`` times as long as the other, EOS aside."""
    source = np.maximum(selected.source_lengths - 1, 1)
    target = np.maximum(selected.target_lengths - 1, 1)
    return np.maximum(source / target, target / source) > most


def score_percentile(selected, percent):
    """The teacher's normalised score is among the worst ``percent`` of all sentences.

    Source: Bergamot's training pipeline leaves out the worst 5 %.
    """
    translated = selected.scores[selected.translated]
    if not len(translated):
        return np.zeros(len(selected.scores), dtype=bool)
    return selected.scores < np.percentile(translated, percent)


def copies(selected, wanted):
    """The translation is the source, symbol by symbol."""
    return selected.copies & bool(wanted)


def duplicates(selected, wanted):
    """The same source with the same translation stands further up in the split."""
    first = np.zeros(len(selected.pairs), dtype=bool)
    first[np.unique(selected.pairs, return_index=True)[1]] = True
    return ~first & bool(wanted)


FILTERS = {
    "length_ratio": length_ratio,
    "score_percentile": score_percentile,
    "copies": copies,
    "duplicates": duplicates,
}


def check_filters(filters):
    """Refuse values out of range.

    Args:
        filters: {name in ``FILTERS``: value}, None or False where it is not wanted
    Raises:
        ValueError: names the flag, what was found and what was expected
    """
    ratio, percent = filters.get("length_ratio"), filters.get("score_percentile")
    if ratio is not None and not ratio >= 1:
        raise ValueError(f"--filter-length-ratio is {ratio}, expected 1 or more, such as 3")
    if percent is not None and not 0 < percent < 100:
        raise ValueError(
            f"--filter-score-percentile is {percent}, expected above 0 and below 100, such as 5"
        )


def faults(selected, filters):
    """The first filter that finds fault with each sentence.

    Args:
        selected: `SelectedHypotheses`
        filters: as for `check_filters`
    Returns:
        (sentences,) places in ``list(FILTERS)``, -1 where nothing is wrong
    """
    found = np.full(len(selected.scores), -1, dtype=np.int8)
    for place, (name, function) in enumerate(FILTERS.items()):
        if filters.get(name):
            caught = function(selected, filters[name]) & selected.translated & (found < 0)
            found[caught] = place
    return found
