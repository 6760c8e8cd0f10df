"""Translation quality: sacreBLEU's scores, and the paired-bootstrap interval of a BLEU gain.

BLEU is computed from every sentence's own numbers of n-grams, so that the score of any part of
the sentences, and of any resample of them, is a sum over rows.
"""

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

# sacreBLEU's defaults for paired bootstrap resampling.
RESAMPLES, SEED = 1000, 12345


def signatures(references):
    """{metric: sacreBLEU's signature}."""
    metrics = {"BLEU": BLEU(), "chrF": CHRF()}
    for metric in metrics.values():
        metric.corpus_score(references[:1], [references[:1]])  # completes the signature
    return {name: str(metric.get_signature()) for name, metric in metrics.items()}


def sentence_stats(texts, references):
    """(sentences, 10) numbers of matching n-grams, of all n-grams, and the two lengths.

    Args:
        texts, references: (sentences,) lists of strings
    """
    metric = BLEU(effective_order=True)  # sentence BLEU; its n-gram counts do not depend on it
    scores = [metric.sentence_score(*pair) for pair in zip(texts, ([r] for r in references))]
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores])


def corpus_bleu(stats):
    """sacreBLEU's corpus score, with its brevity penalty, of the rows of `sentence_stats`."""
    *ngrams, sys_len, ref_len = (int(count) for count in stats.sum(0))
    half = len(ngrams) // 2
    return BLEU.compute_bleu(ngrams[:half], ngrams[half:], sys_len, ref_len, "exp")


def corpus_chrf(texts, references):
    """sacreBLEU's corpus chrF, 0 to 100."""
    return CHRF().corpus_score(texts, [references]).score


def resampled_bleu(stats):
    """(resamples,) corpus BLEU of resampled rows, the same ones for every system.

    Args:
        stats: as `sentence_stats` returns them
    """
    samples = np.random.default_rng(SEED).choice(len(stats), size=(RESAMPLES, len(stats)))
    return np.array([corpus_bleu(stats[ids]).score for ids in samples])


def bleu_gain(bleu, resampled, baseline_bleu, baseline_resampled):
    """The gain in BLEU over a baseline, and its 95 % interval by paired bootstrap.

    Both systems are scored on the same resampled sentences. Seed, number of resamples and
    quantiles are sacreBLEU's. (Its own paired test gives an interval for each system, and none
    for the difference.)

    Args:
        bleu, baseline_bleu: corpus scores
        resampled, baseline_resampled: as `resampled_bleu` returns them
    Returns:
        {"bleu": the gain, "low", "high": bounds of its interval}
    Source: Koehn 2004, Statistical significance tests for machine translation evaluation.
    """
    gains = np.sort(resampled - baseline_resampled)
    cut = RESAMPLES // 40  # 2.5 % at either end
    return {
        "bleu": bleu - baseline_bleu,
        "low": float(gains[cut]),
        "high": float(gains[-cut - 1]),
    }


def group_by_length(lengths, max_groups=5):
    """Group sentences of similar length; groups have about the same size.

    Args:
        lengths: (sentences,) source lengths in tokens
        max_groups: the largest number of groups
    Returns:
        [((shortest, longest), sentence ids), ...], the shortest first
    """
    lengths = np.asarray(lengths)
    quantiles = np.linspace(0, 1, max_groups + 1)[1:]
    bounds = np.unique(np.quantile(lengths, quantiles, method="lower"))
    group = np.searchsorted(bounds, lengths)
    return [
        ((int(lengths[ids].min()), int(lengths[ids].max())), ids)
        for ids in (np.flatnonzero(group == i) for i in range(len(bounds)))
        if len(ids)
    ]
