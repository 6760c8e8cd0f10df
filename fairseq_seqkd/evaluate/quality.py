"""How good translations are: sacreBLEU's scores, and what chance has to do with them."""

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

# sacreBLEU's defaults for paired bootstrap resampling.
RESAMPLES, SEED = 1000, 12345


def score(row, texts, references):
    """Fill in a row's scores.

    Args:
        row: `Row`
        texts, references: (sentences,) lists of strings
    Returns:
        {metric: sacreBLEU's signature}
    """
    metrics = {"BLEU": BLEU(), "chrF": CHRF()}
    bleu, chrf = (one.corpus_score(texts, [references]) for one in metrics.values())
    row.bleu, row.chrf = bleu.score, chrf.score
    row.length_ratio = bleu.ratio
    row.sentences = len(texts)
    return {name: str(one.get_signature()) for name, one in metrics.items()}


def difference(texts, first_texts, references):
    """By how much BLEU differs from another system's, and within which bounds.

    Both are resampled alike (paired bootstrap, Koehn 2004), and as sacreBLEU does it: the
    same sentences are drawn, and intervals end at the same quantiles. (Its own paired test
    tells the interval of each system, not that of the difference.)

    Args:
        texts, first_texts, references: (sentences,) lists of strings
    Returns:
        {"bleu": the difference, "low", "high": bounds of its 95 % interval}
    """
    everybody = range(len(references))
    this, first = (bleu_of(everybody, one, references) for one in (texts, first_texts))
    resampled = np.sort(
        resampled_bleu(texts, references) - resampled_bleu(first_texts, references)
    )
    cut = RESAMPLES // 40  # a fortieth at either end
    return {
        "bleu": this - first,
        "low": float(resampled[cut]),
        "high": float(resampled[-cut - 1]),
    }


def resampled_bleu(texts, references):
    """(resamples,) corpus BLEU of sentences drawn with replacement, alike for every system."""
    metric = BLEU(effective_order=True)  # of a sentence; the counts do not depend on it
    counts = np.array([_counts(metric, *pair) for pair in zip(texts, references)])
    drawn = np.random.default_rng(SEED).choice(len(counts), size=(RESAMPLES, len(counts)))
    return np.array([_bleu(counts[ids].sum(0)) for ids in drawn])


def _counts(metric, text, reference):
    """A sentence's matching and possible n-grams, and the two lengths."""
    one = metric.sentence_score(text, [reference])
    return [*one.counts, *one.totals, one.sys_len, one.ref_len]


def _bleu(counts):
    *ngrams, sys_len, ref_len = (int(count) for count in counts)
    half = len(ngrams) // 2
    return BLEU.compute_bleu(ngrams[:half], ngrams[half:], sys_len, ref_len, "exp").score


def groups_by_length(lengths, most=5):
    """Cut sentences into groups of about the same size and similar length.

    Args:
        lengths: (sentences,) of the sources, in tokens
        most: groups
    Returns:
        [((shortest, longest), sentence ids), ...], the shortest first
    """
    lengths = np.asarray(lengths)
    bounds = np.unique(np.quantile(lengths, np.linspace(0, 1, most + 1)[1:], method="lower"))
    group = np.searchsorted(bounds, lengths)
    return [
        ((int(lengths[ids].min()), int(lengths[ids].max())), ids)
        for ids in (np.flatnonzero(group == i) for i in range(len(bounds)))
        if len(ids)
    ]


def bleu_of(ids, texts, references):
    """Corpus BLEU of some of the sentences."""
    return BLEU().corpus_score([texts[i] for i in ids], [[references[i] for i in ids]]).score
