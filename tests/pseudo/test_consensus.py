import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from fairseq_seqkd.pseudo.consensus import UTILITIES, expected_utility

OF_SACREBLEU = {
    "chrf": CHRF(),
    "bleu": BLEU(smooth_method="exp", effective_order=True),
}
WORDS = st.sampled_from(
    ["a", "der", "Hund", "läuft", "läuft.", "1,5", "-", "\U0001f600", "(x)"]
)
TEXTS = st.lists(st.lists(WORDS, max_size=7).map(" ".join), min_size=1, max_size=6)


@pytest.mark.parametrize("name", list(UTILITIES))
@settings(max_examples=150, deadline=None)
@given(texts=TEXTS)
@example(texts=["", "", "a"])
@example(texts=["a b", "b a", "a b c d e"])
def test_equals_sacrebleus_sentence_scores(name, texts):
    found = UTILITIES[name](texts)
    expected = [
        [OF_SACREBLEU[name].sentence_score(one, [other]).score for other in texts]
        for one in texts
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_a_hypothesis_is_no_reference_of_its_own():
    utilities = np.array([[100.0, 10, 40], [20, 100, 60], [50, 70, 100]])
    assert expected_utility(utilities).tolist() == [25, 40, 60]
    weighted = expected_utility(utilities, [0.5, 0.25, 0.25])
    assert weighted.tolist() == [25, pytest.approx(100 / 3), pytest.approx(42.5 / 0.75)]
    assert expected_utility(np.array([[100.0]])).tolist() == [0]
