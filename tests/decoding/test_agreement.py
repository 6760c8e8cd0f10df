import numpy as np
import pytest

from fairseq_seqkd.decoding.agreement import (
    SENTENCES,
    Agreement,
    Disagreement,
    compare_engines,
    evenly_spread,
)


def engine(hypotheses):
    """An engine that gives these tokens; None: no hypothesis."""

    def decode(dataset, ids):
        for id_ in reversed(ids):
            tokens = hypotheses[id_]
            yield int(id_), [] if tokens is None else [(np.array([*tokens, 2]), -1.0)]

    return decode


A, B, C = [5, 6, 7, 8, 9], [5, 6, 7, 8, 4], [11, 12, 13, 14]


@pytest.mark.parametrize(
    "original, converted, quantised, expected",
    [
        ([A, B], [A, B], None, (2, 2, None)),
        ([A, B], [A, A], None, (2, 1, None)),
        ([A, None, None], [A, B, None], None, (2, 1, None)),
        ([None], [None], [A], (0, 0, None)),
        ([A, B], [A, B], [A, B], (2, 2, 100.0)),
        ([A, B], [A, B], [C, C], (2, 2, 0.0)),
    ],
)
def test_compares_best_hypotheses(original, converted, quantised, expected):
    others = engine(converted), engine(quantised) if quantised else None
    found = compare_engines(engine(original), *others, None, np.arange(len(original)))
    assert found == (*expected, None)


@pytest.mark.parametrize("quantised, expected", [([A, A], 100.0), (None, 0.0)])
def test_a_shortlist_is_compared_with_what_is_shipped_without_it(quantised, expected):
    others = [quantised and engine(quantised), None, np.arange(2), engine([A, A])]
    found = compare_engines(engine([C, C]), engine([C, C]), *others)
    assert found.shortlist_bleu == expected
    assert f"with its shortlist, BLEU {expected} against without" in str(found)


@pytest.mark.parametrize(
    "agreement, refused",
    [
        ((200, 180, None), False),
        ((200, 179, None), True),
        ((4, 2, None), False),
        ((4, 1, None), True),
        ((0, 0, None), False),
        ((200, 200, 60.0), False),
        ((200, 200, 59.99), True),
        ((200, 100, 99.0), True),
        ((200, 200, None, 60.0), False),
        ((200, 200, 99.0, 59.99), True),
    ],
)
def test_limits(agreement, refused):
    if not refused:
        return Agreement(*agreement).refuse("Remedy.")
    with pytest.raises(Disagreement, match="translations equal fairseq's.*Remedy"):
        Agreement(*agreement).refuse("Remedy.")


@pytest.mark.parametrize("n", [0, 1, 7, 200, 1000])
def test_sentences_are_spread_over_all(n):
    ids = evenly_spread(np.arange(n)[::-1], SENTENCES).tolist()
    assert len(ids) == len(set(ids)) == min(n, SENTENCES)
    assert not ids or (ids[0] == n - 1 and (n == 1 or ids[-1] == 0))
