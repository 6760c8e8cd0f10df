"""Whether counts follow a law."""

import math

import pytest


def deviation(counts, law):
    """Pearson's chi-square statistic, less its mean, in standard deviations.

    Args:
        counts: of draws, a tensor of any shape
        law: the probabilities of the same shape, which sum to 1
    """
    draws = counts.sum()
    assert law.sum().item() == pytest.approx(1)
    due = draws * law
    bins = due >= 5
    freedom = int(bins.sum()) - 1
    assert freedom >= 20 and due[bins].sum() > 0.95 * draws
    statistic = ((counts - due)[bins] ** 2 / due[bins]).sum().item()
    return (statistic - freedom) / math.sqrt(2 * freedom)
