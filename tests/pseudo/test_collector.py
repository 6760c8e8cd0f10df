import math

import numpy as np
import pytest
from conftest import tokens_of

from fairseq_seqkd.pseudo.collector import NBestCollector

A, B, C = [5, 2], [6, 7, 2], [8, 2]


def collected(tmp_path, *hypotheses):
    """A collector with (id, score, tokens) hypotheses, sorted."""
    collector = NBestCollector(str(tmp_path))
    for id_, score, tokens in hypotheses:
        collector.add(id_, score, np.array(tokens, np.int32))
    collector.sort()
    return collector


@pytest.mark.parametrize(
    "hypotheses, expected",
    [
        ([(0, -1.0, A), (0, -0.5, B)], [B, A]),
        ([(0, -1.0, A), (1, -0.1, C), (0, -0.5, B)], [B, A]),
        ([(0, None, B), (0, None, A)], [B, A]),  # without scores, the order of adding
        ([(0, -0.5, A), (0, -0.5, B)], [A, B]),
        ([(0, -1.0, A), (0, -0.5, B), (0, -0.2, A)], [A, B]),
        ([(0, -math.inf, A), (0, -0.5, B)], [B]),
        ([(0, -0.1, [2]), (0, -0.5, B)], [B]),  # EOS alone is no hypothesis
    ],
)
def test_hypotheses_are_sorted_by_score(tmp_path, hypotheses, expected):
    sentence = collected(tmp_path, *hypotheses).sentence(0)
    assert tokens_of(sentence) == expected
    assert (sentence.id, sentence.status) == (0, "translated")


def test_a_duplicate_keeps_its_best_score(tmp_path):
    sentence = collected(tmp_path, (0, -1.0, A), (0, -0.2, A)).sentence(0)
    assert [score for _, score in sentence.hypotheses] == [-0.2]


def test_sentences_without_hypotheses(tmp_path):
    collector = collected(tmp_path, (0, -math.inf, A), (2, -1.0, A))
    statuses = [collector.sentence(id_).status for id_ in range(3)]
    assert statuses == ["no finished hypothesis", "not in the import", "translated"]


def test_largest_nbest(tmp_path):
    assert collected(tmp_path).largest_nbest() == 0
    assert collected(tmp_path, (4, -1.0, A), (1, -1.0, A), (4, -2.0, B)).largest_nbest() == 2
