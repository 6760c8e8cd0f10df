"""Translation quality: sacreBLEU's scores, and the paired-bootstrap interval of a BLEU gain."""

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

# sacreBLEU's defaults for paired bootstrap resampling.
RESAMPLES, SEED = 1000, 12345


def score_row(row, texts, references):
    """Fill in a row's scores.

    Args:
        row: `Row`
        texts, references: (sentences,) lists of strings
    Returns:
        {metric: sacreBLEU's signature}
    """
    metrics = {"BLEU": BLEU(), "chrF": CHRF()}
    bleu, chrf = (metric.corpus_score(texts, [references]) for metric in metrics.values())
    row.bleu, row.chrf = bleu.score, chrf.score
    row.length_ratio = bleu.ratio
    row.sentences = len(texts)
    return {name: str(metric.get_signature()) for name, metric in metrics.items()}


def bleu_gain(texts, baseline_texts, references):
    """The gain in BLEU over a baseline, and its 95 % interval by paired bootstrap.

    Both systems are scored on the same resampled sentences. Seed, number of resamples and
    quantiles are sacreBLEU's. (Its own paired test gives an interval for each system, and none
    for the difference.)

    Args:
        texts, baseline_texts, references: (sentences,) lists of strings
    Returns:
        {"bleu": the gain, "low", "high": bounds of its interval}
    Source: Koehn 2004, Statistical significance tests for machine translation evaluation.
    """
    all_ids = range(len(references))
    bleu, baseline_bleu = (
        subset_bleu(all_ids, system, references) for system in (texts, baseline_texts)
    )
    gains = np.sort(
        resampled_bleu(texts, references) - resampled_bleu(baseline_texts, references)
    )
    cut = RESAMPLES // 40  # 2.5 % at either end
    return {
        "bleu": bleu - baseline_bleu,
        "low": float(gains[cut]),
        "high": float(gains[-cut - 1]),
    }


def resampled_bleu(texts, references):
    """(resamples,) corpus BLEU of resampled sentences, the same ones for every system."""
    metric = BLEU(effective_order=True)  # sentence BLEU; its n-gram counts do not depend on it
    sentence_stats = np.array([_bleu_stats(metric, *pair) for pair in zip(texts, references)])
    size = RESAMPLES, len(sentence_stats)
    samples = np.random.default_rng(SEED).choice(len(sentence_stats), size=size)
    return np.array([_corpus_bleu(sentence_stats[ids].sum(0)) for ids in samples])


def _bleu_stats(metric, text, reference):
    """A sentence's numbers of matching and of all n-grams, and the two lengths."""
    score = metric.sentence_score(text, [reference])
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]


def _corpus_bleu(stats):
    *ngrams, sys_len, ref_len = (int(count) for count in stats)
    half = len(ngrams) // 2
    return BLEU.compute_bleu(ngrams[:half], ngrams[half:], sys_len, ref_len, "exp").score


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


def subset_bleu(ids, texts, references):
    """Corpus BLEU of the sentences with these ids."""
    return BLEU().corpus_score([texts[i] for i in ids], [[references[i] for i in ids]]).score
