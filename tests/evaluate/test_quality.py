import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest, estimate_ci

from fairseq_seqkd.evaluate.quality import bleu_of, difference, groups_by_length, resampled_bleu

WORDS = "a man in the red hat looks at some dog that runs over green grass".split()


def sentences(seed, count=60):
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(1, 14))) for _ in range(count)]


def worse(references, seed, share):
    """The references with a share of their words drawn anew."""
    draw = np.random.default_rng(seed)
    return [
        " ".join(w if draw.random() > share else draw.choice(WORDS) for w in line.split())
        for line in references
    ]


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


def test_interval_of_a_difference(corpus):
    references, good, bad = corpus
    found = difference(bad, good, references)
    scores = [BLEU().corpus_score(texts, [references]).score for texts in (bad, good)]
    assert found["bleu"] == pytest.approx(scores[0] - scores[1])
    assert found["low"] < found["bleu"] < found["high"] < 0
    back = difference(good, bad, references)
    assert back["low"] == pytest.approx(-found["high"], abs=0.2)


def test_pairs_are_drawn_together(corpus):
    """Apart, the interval would be that of two independent systems, which is wider."""
    references, good, _ = corpus
    slightly = [good[0] + " dog", *good[1:]]
    found = difference(slightly, good, references)
    alone = resampled_bleu(good, references)
    assert found["high"] - found["low"] < 0.2 * (np.quantile(alone, 0.975) - alone.min())


def test_no_difference(corpus):
    references, good, _ = corpus
    found = difference(good, good, references)
    assert found == {"bleu": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(
    "lengths, expected",
    [
        ([3, 1, 2, 5, 4], [((i, i), [place]) for i, place in enumerate([1, 2, 0, 4, 3], 1)]),
        ([7] * 6, [((7, 7), [0, 1, 2, 3, 4, 5])]),
        ([1, 9], [((1, 1), [0]), ((9, 9), [1])]),
        ([2, 2, 2, 2, 8], [((2, 2), [0, 1, 2, 3]), ((8, 8), [4])]),
    ],
)
def test_groups_by_length(lengths, expected):
    found = [(bounds, ids.tolist()) for bounds, ids in groups_by_length(lengths)]
    assert found == expected


def test_groups_take_everybody_once():
    lengths = np.random.default_rng(0).integers(1, 40, 333)
    groups = groups_by_length(lengths)
    assert sorted(i for _, ids in groups for i in ids) == list(range(333))
    assert all(a[0][1] < b[0][0] for a, b in zip(groups, groups[1:]))
    assert len(groups) == 5


def test_bleu_of_some(corpus):
    references, good, _ = corpus
    some = [good[i] for i in (3, 5)]
    expected = BLEU().corpus_score(some, [[references[i] for i in (3, 5)]]).score
    assert bleu_of([3, 5], good, references) == expected
