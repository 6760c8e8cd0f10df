import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.shortlist import association
from fairseq_seqkd.shortlist.association import most_probable, translation_table

SYMBOLS = 5
sentences = st.lists(st.integers(0, SYMBOLS - 1), min_size=1, max_size=6).map(np.array)
corpora = st.lists(st.tuples(sentences, sentences), min_size=1, max_size=6)


def model_1(pairs, iterations=4):
    """The definition, in loops: {(source, target): t(target | source)}."""
    t = {(s, w): 1.0 for source, target in pairs for s in source for w in target}
    for _ in range(iterations):
        expected, total = dict.fromkeys(t, 0.0), {}
        for source, target in pairs:
            for w in target:
                norm = sum(t[s, w] for s in source)
                for s in source:
                    expected[s, w] += t[s, w] / norm
                    total[s] = total.get(s, 0.0) + t[s, w] / norm
        t = {(s, w): value / total[s] for (s, w), value in expected.items()}
    return t


def as_dict(table):
    return dict(zip(zip(table.source.tolist(), table.target.tolist()), table.probability))


@given(corpora)
@settings(max_examples=60, deadline=None)
def test_it_is_ibm_model_1(pairs):
    found = as_dict(translation_table(pairs, SYMBOLS))
    assert found == pytest.approx(model_1([(s.tolist(), t.tolist()) for s, t in pairs]))


@given(corpora, st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_blocks_do_not_matter(pairs, size):
    whole = as_dict(translation_table(pairs, SYMBOLS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(association, "_PAIRS_A_BLOCK", size)
        assert as_dict(translation_table(pairs, SYMBOLS)) == pytest.approx(whole)


def test_a_frequent_symbol_does_not_win():
    """Target 0 stands in every pair, and 7 is the only thing that source 3 adds."""
    pairs = [(np.array([1, 2]), np.array([0, 5]))] * 5 + [(np.array([1, 3]), np.array([0, 7]))]
    likely = most_probable(translation_table(pairs, 8), 1)
    assert likely[3] == [7] and likely[1] == [0]


@given(corpora, st.integers(1, 3), st.sets(st.integers(0, SYMBOLS - 1), max_size=2))
@settings(max_examples=60, deadline=None)
def test_the_most_probable_ones(pairs, number, left_out):
    table = translation_table(pairs, SYMBOLS)
    found, probability = most_probable(table, number, left_out), as_dict(table)
    for source in set(table.source.tolist()):
        possible = [w for s, w in probability if s == source and w not in left_out]
        possible.sort(key=lambda w: (-probability[source, w], w))
        assert found.get(source, []) == possible[:number]
