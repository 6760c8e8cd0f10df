"""How likely a target symbol is for a source symbol: the translation table of IBM model 1.

Counts of symbols that stand in the same pairs favour frequent ones. Model 1 lets the source
symbols of a pair compete for each of its target symbols.
"""

from typing import List, NamedTuple

import numpy as np

_ITERATIONS = 4
_PAIRS_A_BLOCK = 5000


class _Links(NamedTuple):
    """Every source symbol beside every target symbol of some pairs.

    Attributes:
        cells: (links,) position of the two symbols in the table
        targets: (links,) number of the target token among those of the block
    """

    cells: np.ndarray
    targets: np.ndarray


class TranslationTable(NamedTuple):
    """Pairs of symbols that stand in a pair of sentences together, sorted.

    Attributes:
        source, target: (cells,) symbols
        probability: (cells,) t(target | source), 1 in sum for each source symbol
    """

    source: np.ndarray
    target: np.ndarray
    probability: np.ndarray


def translation_table(pairs, target_symbols):
    """Estimate IBM model 1 by expectation maximisation, from uniform probabilities.

    Args:
        pairs: list of (source, target), (length,) symbols; a source's EOS, if there, stands
            for the model's empty word, to which target symbols without a source belong
        target_symbols: how many there are
    Returns:
        a `TranslationTable`
    Source: Brown et al. 1993, "The mathematics of statistical machine translation", section
        4.2 (equations 14 to 17).
    """
    cells, blocks = _count_links(pairs, target_symbols)
    source, target = cells // target_symbols, cells % target_symbols
    probability = np.ones(len(cells))
    for _ in range(_ITERATIONS):
        expected = np.zeros(len(cells))
        for links in blocks:
            weights = probability[links.cells]
            weights /= np.bincount(links.targets, weights)[links.targets]
            expected += np.bincount(links.cells, weights, minlength=len(cells))
        probability = expected / np.bincount(source, expected)[source]
    return TranslationTable(source, target, probability)


def _count_links(pairs, target_symbols):
    """The sorted cells, each source * target_symbols + target, and the `_Links` of blocks."""
    blocks = [
        _block(pairs[begin : begin + _PAIRS_A_BLOCK], target_symbols)
        for begin in range(0, len(pairs), _PAIRS_A_BLOCK)
    ]
    cells = np.unique(np.concatenate([keys for keys, _, _ in blocks]))
    links = [
        _Links(np.searchsorted(cells, keys).astype(np.int32)[inverse], targets)
        for keys, inverse, targets in blocks
    ]
    return cells, links


def _block(pairs: List, target_symbols):
    """The distinct cells of some pairs, the cell of each link among them, its target token."""
    keys = [
        (source.astype(np.int64)[:, None] * target_symbols + target).ravel()
        for source, target in pairs
    ]
    ends = np.cumsum([len(target) for _, target in pairs])
    targets = [
        np.tile(np.arange(end - len(target), end, dtype=np.int32), len(source))
        for end, (source, target) in zip(ends, pairs)
    ]
    distinct, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    return distinct, inverse.reshape(-1).astype(np.int32), np.concatenate(targets)


def most_probable(table, number, left_out=()):
    """The most probable target symbols of each source symbol.

    Args:
        table: `TranslationTable`
        number: target symbols for a source symbol, at most
        left_out: target symbols that are not to be among them
    Returns:
        {source symbol: its target symbols, the most probable first; of equals the lowest}
    """
    kept = ~np.isin(table.target, list(left_out))
    source, target, probability = (column[kept] for column in table)
    order = np.lexsort((target, -probability, source))
    source, target = source[order], target[order]
    symbols, begins = np.unique(source, return_index=True)
    groups = np.split(target, begins[1:])
    return {int(s): group[:number].tolist() for s, group in zip(symbols, groups)}
