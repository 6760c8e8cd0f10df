"""Utilities between all hypotheses of an n-best list, as sacreBLEU's sentence scores.

The n-grams of a list are counted once, and the matches of all its pairs at once.
"""

import numpy as np
from sacrebleu.metrics import BLEU

_CHARACTERS, _WORDS = 6, 4  # the orders of chrF and BLEU
_BETA_SQUARED = 4


def chrf_matrix(texts):
    """sacreBLEU's sentence chrF of every text against every other.

    Args:
        texts: list of n strings
    Returns:
        (n, n) scores from 0 to 100, of the row's text with the column's as the reference
    """
    totals, matches = ngram_matches(
        [_codes("".join(text.split())) for text in texts], _CHARACTERS
    )
    of_hypothesis, of_reference = totals[:, :, None], totals[:, None, :]  # (orders, n, 1)
    # An order counts where both texts are long enough for it.
    counts = (of_hypothesis > 0) & (of_reference > 0)
    n_orders = np.maximum(counts.sum(0), 1)
    precision = (matches / np.maximum(of_hypothesis, 1) * counts).sum(0) / n_orders
    recall = (matches / np.maximum(of_reference, 1) * counts).sum(0) / n_orders
    mean = _BETA_SQUARED * precision + recall
    scores = (1 + _BETA_SQUARED) * precision * recall / np.where(mean > 0, mean, 1)
    return 100 * np.where(mean > 0, scores, 0.0)


def bleu_matrix(texts):
    """sacreBLEU's sentence BLEU of every text against every other.

    Smoothing is exponential, and the order effective, as in ``selectors.METRICS``. Args and
    result as for `chrf_matrix`.
    """
    tokenise = BLEU().tokenizer
    words = [tokenise(text.rstrip()).split() for text in texts]
    indices = {word: index for index, word in enumerate(sorted(set().union(*words)))}
    rows = [np.array([indices[word] for word in row], dtype=np.int64) for row in words]
    totals, matches = ngram_matches(rows, _WORDS)
    lengths = totals[0].astype(np.float64)
    log_sum, order = np.zeros(matches.shape[1:]), np.zeros(matches.shape[1:])
    smoothing = np.ones_like(log_sum)
    for total, correct in zip(totals, matches):
        total = np.broadcast_to(total[:, None], correct.shape)
        smoothing = np.where((total > 0) & (correct == 0), 2 * smoothing, smoothing)
        shown = np.where(correct > 0, correct, 1 / smoothing)
        log_sum += np.where(total > 0, np.log(shown / np.maximum(total, 1)), 0)
        order += total > 0
    brevity = np.minimum(1 - lengths[None, :] / np.maximum(lengths[:, None], 1), 0)
    scores = 100 * np.exp(brevity + log_sum / np.maximum(order, 1))
    return np.where(matches.sum(0) > 0, scores, 0.0)


UTILITIES = {"chrf": chrf_matrix, "bleu": bleu_matrix}


def _codes(text):
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)


def ngram_matches(rows, max_order):
    """Count the n-grams of some sequences, and those that each two have in common.

    Args:
        rows: list of n arrays of whole numbers
        max_order: the longest n-grams
    Returns:
        (max_order, n) numbers of n-grams, and (max_order, n, n) numbers of common ones
    """
    n = len(rows)
    lengths = np.array([len(row) for row in rows])
    owner = np.repeat(np.arange(n), lengths)
    symbols = np.concatenate(rows) if n else np.zeros(0, np.int64)
    _, symbols = np.unique(symbols, return_inverse=True)
    room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(owner))  # to the row's end
    totals, matches = [], []
    grams = np.zeros(len(owner), np.int64)
    for order in range(1, max_order + 1):
        at = np.flatnonzero(room >= order)
        # The n-grams of the order before, each followed by one more symbol, numbered anew.
        pairs = grams[at] * (len(owner) + 1) + symbols[at + order - 1]
        _, numbers = np.unique(pairs, return_inverse=True)
        grams = np.zeros(len(owner), np.int64)
        grams[at] = numbers
        width = int(numbers.max(initial=-1)) + 1
        counts = np.bincount(owner[at] * width + numbers, minlength=n * width)
        counts = counts.reshape(n, width)
        totals.append(counts.sum(1))
        matches.append(np.minimum(counts[:, None], counts[None]).sum(-1))
    return np.array(totals), np.array(matches)


def expected_utility(utilities, weights=None):
    """The mean utility of each hypothesis with all others as references.

    Args:
        utilities: (n, n), see `chrf_matrix`
        weights: (n,) of the references; None: all alike
    Returns:
        (n,) means; a hypothesis is no reference of its own. All 0 for a single one
    Source: Eikema & Aziz 2020 (arXiv 2005.10283), section 6.
    """
    n = len(utilities)
    weights = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    others = weights[None, :] * (1 - np.eye(n))
    total = others.sum(1)
    return (utilities * others).sum(1) / np.where(total > 0, total, 1)
