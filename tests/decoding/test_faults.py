"""Faults of a translation that can be seen in its text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_seqkd.decoding.faults import has_loop, longest_repeat, numbers_differ, numbers_in

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=8)


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("no number", {}),
        ("12 men, 3 women and 12 dogs", {"12": 2, "3": 1}),
        ("1,000.50 and 1.000,50", {"100050": 2}),
        ("in 2016.", {"2016": 1}),
        ("3-4 B52", {"3": 1, "4": 1, "52": 1}),
        ("\u0663\u0664", {"34": 1}),  # Arabic-Indic digits
        ("1\u00a0000", {"1000": 1}),
        ("x\u00b2", {}),  # a superscript is no digit of a number
    ],
)
def test_numbers_are_their_digits(text, numbers):
    assert numbers_in(text) == numbers


def test_numbers_differ_if_one_is_lost_added_or_changed():
    assert not numbers_differ("5 and 7", "7 or 5")
    assert numbers_differ("5 and 7", "5") and numbers_differ("5", "5 5")
    assert numbers_differ("5", "6") and numbers_differ("zwei", "2")


@pytest.mark.parametrize(
    "text, repeat",
    [
        ("", 0),
        ("a", 1),
        ("a b a b", 2),
        ("a a a", 3),
        ("x a b c a b c a b c y", 3),
        ("a b a", 1),
    ],
)
def test_longest_repeat(text, repeat):
    assert longest_repeat(text) == repeat


@given(WORDS, st.integers(2, 5), WORDS, WORDS)
def test_a_repeated_phrase_is_found_wherever_it_stands(phrase, times, before, behind):
    text = " ".join(before + times * phrase + behind)
    assert longest_repeat(text) >= times


@given(st.lists(st.integers(), unique=True, min_size=1))
def test_different_words_repeat_nothing(words):
    assert longest_repeat(" ".join(map(str, words))) == 1


def test_a_loop_is_worse_than_the_source():
    assert has_loop("very very very good") and not has_loop("very very good")
    assert not has_loop("very very very good", "sehr sehr sehr gut")
    assert has_loop("very very very very good", "sehr sehr sehr gut")
