import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest, estimate_ci

from fairseq_seqkd.evaluate import quality
from fairseq_seqkd.evaluate.quality import (
    corpus_bleu,
    corpus_chrf,
    group_by_length,
    sentence_stats,
    signatures,
)

WORDS = "a man in the red hat looks at some dog that runs over green grass".split()


def sentences(seed, count=60):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 14))) for _ in range(count)]


def worse(references, seed, fraction):
    """The references with a fraction of their words replaced by random ones."""
    rng = np.random.default_rng(seed)
    return [
        " ".join(w if rng.random() > fraction else rng.choice(WORDS) for w in line.split())
        for line in references
    ]


def resampled_bleu(texts, references):
    return quality.resampled_bleu(sentence_stats(texts, references))


def bleu_gain(texts, baseline_texts, references):
    systems = [sentence_stats(system, references) for system in (texts, baseline_texts)]
    both = [(corpus_bleu(stats).score, quality.resampled_bleu(stats)) for stats in systems]
    return quality.bleu_gain(*both[0], *both[1])


@pytest.fixture
def corpus():
    references = sentences(0)
    return references, worse(references, 1, 0.1), worse(references, 2, 0.3)


def test_resampling_is_sacrebleus_own(corpus):
    references, good, bad = corpus
    test = PairedTest([("a", good), ("b", bad)], {"BLEU": BLEU()}, [references], "bs", 1000)
    expected = test()[1]["BLEU"][1]
    mean, half_width = estimate_ci(resampled_bleu(bad, references))
    assert mean == pytest.approx(expected.mean, abs=1e-3)
    assert half_width == pytest.approx(expected.ci, abs=1e-3)


def test_interval_of_a_gain(corpus):
    references, good, bad = corpus
    gain = bleu_gain(bad, good, references)
    scores = [BLEU().corpus_score(texts, [references]).score for texts in (bad, good)]
    assert gain["bleu"] == pytest.approx(scores[0] - scores[1])
    assert gain["low"] < gain["bleu"] < gain["high"] < 0
    reverse = bleu_gain(good, bad, references)
    assert reverse["low"] == pytest.approx(-gain["high"], abs=0.2)


def test_both_systems_are_resampled_alike(corpus):
    """Resampled apart, the interval would be that of two independent systems: wider."""
    references, good, _ = corpus
    slightly = [good[0] + " dog", *good[1:]]
    gain = bleu_gain(slightly, good, references)
    alone = resampled_bleu(good, references)
    assert gain["high"] - gain["low"] < 0.2 * (np.quantile(alone, 0.975) - alone.min())


def test_no_gain(corpus):
    references, good, _ = corpus
    assert bleu_gain(good, good, references) == {"bleu": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(
    "lengths, expected",
    [
        ([3, 1, 2, 5, 4], [((i, i), [id_]) for i, id_ in enumerate([1, 2, 0, 4, 3], 1)]),
        ([7] * 6, [((7, 7), [0, 1, 2, 3, 4, 5])]),
        ([1, 9], [((1, 1), [0]), ((9, 9), [1])]),
        ([2, 2, 2, 2, 8], [((2, 2), [0, 1, 2, 3]), ((8, 8), [4])]),
    ],
)
def test_group_by_length(lengths, expected):
    groups = [(bounds, ids.tolist()) for bounds, ids in group_by_length(lengths)]
    assert groups == expected


def test_every_sentence_is_in_one_group():
    lengths = np.random.default_rng(0).integers(1, 40, 333)
    groups = group_by_length(lengths)
    assert sorted(i for _, ids in groups for i in ids) == list(range(333))
    assert all(a[0][1] < b[0][0] for a, b in zip(groups, groups[1:]))
    assert len(groups) == 5


def test_bleu_of_a_subset(corpus):
    references, good, _ = corpus
    some = [good[i] for i in (3, 5)]
    expected = BLEU().corpus_score(some, [[references[i] for i in (3, 5)]]).score
    assert corpus_bleu(sentence_stats(good, references)[[3, 5]]).score == expected


@pytest.mark.parametrize("empty", [False, True])
def test_scores_are_sacrebleus(corpus, empty):
    """Of the corpus as of its first lines; an empty translation counts."""
    references, _, bad = corpus
    bad = ["", *bad[1:]] if empty else bad
    stats = sentence_stats(bad, references)
    for part in (slice(None), slice(7)):
        expected = BLEU().corpus_score(bad[part], [references[part]])
        found = corpus_bleu(stats[part])
        assert (found.score, found.bp, found.ratio) == (
            *(expected.score, expected.bp),
            expected.sys_len / expected.ref_len,
        )
        chrf = CHRF().corpus_score(bad[part], [references[part]]).score
        assert corpus_chrf(bad[part], references[part]) == chrf


def test_signatures_are_sacrebleus(corpus):
    metrics = {"BLEU": BLEU(), "chrF": CHRF()}
    for metric in metrics.values():
        metric.corpus_score(corpus[1], [corpus[0]])
    found = {name: str(metric.get_signature()) for name, metric in metrics.items()}
    assert signatures(corpus[0]) == found
