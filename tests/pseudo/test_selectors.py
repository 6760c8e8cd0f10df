import numpy as np
import pytest
import sacrebleu
from fairseq.data import Dictionary
from sacrebleu.metrics import CHRF

from fairseq_seqkd.pseudo.selectors import Best, Closest, MinimumBayesRisk, build_selector


@pytest.fixture(scope="module")
def dictionary():
    dictionary = Dictionary()
    for word in "a b c d e f g h i j".split():
        dictionary.add_symbol(word)
        dictionary.add_symbol(word + "@@")
    return dictionary


def encode(dictionary, text):
    return dictionary.encode_line(text, add_if_not_exist=False).numpy()


def nbest(dictionary, *texts):
    return [(encode(dictionary, text), -float(i)) for i, text in enumerate(texts)]


def test_best_is_the_first(dictionary):
    assert Best()(nbest(dictionary, "a b", "c d"), encode(dictionary, "c d")) == 0


def test_closest_has_the_highest_sentence_bleu(dictionary):
    hypotheses = nbest(dictionary, "a b c j", "a b c d e", "j i h")
    assert Closest(dictionary)(hypotheses, encode(dictionary, "a b c d e")) == 1


def test_of_equally_close_ones_the_teachers_favourite(dictionary):
    hypotheses = nbest(dictionary, "j i", "a b d", "a b c", "a b c")
    assert Closest(dictionary)(hypotheses, encode(dictionary, "a b c")) == 2
    assert Closest(dictionary)(nbest(dictionary, "j", "i"), encode(dictionary, "a")) == 0


def test_measures_words_and_not_subwords(dictionary):
    gold = encode(dictionary, "a@@ b@@ c d")  # the words "abc" and "d"
    hypotheses = nbest(dictionary, "a@@ b@@ j i", "j d")
    assert Closest(dictionary)(hypotheses, gold) == 0
    assert Closest(dictionary, remove_bpe="@@ ")(hypotheses, gold) == 1


def test_agrees_with_a_plain_loop_over_sentence_bleu(dictionary):
    rng = np.random.default_rng(1)
    words = list("abcdefghij")
    closest = Closest(dictionary)
    for _ in range(200):
        gold, *texts = (" ".join(rng.choice(words[:4], rng.integers(1, 9))) for _ in range(9))
        scores = [sacrebleu.sentence_bleu(text, [gold]).score for text in texts]
        selected = closest(nbest(dictionary, *texts), encode(dictionary, gold))
        assert selected == scores.index(max(scores))


def test_built_by_name(dictionary):
    assert isinstance(build_selector("best", dictionary), Best)
    closest = build_selector("closest", dictionary, remove_bpe="@@ ")
    assert closest.settings["remove_bpe"] == "@@ "


def test_an_unknown_word_in_both_is_no_match(dictionary):
    gold = encode(dictionary, "a nosuch b")
    hypotheses = nbest(dictionary, "a c b", "a other b")
    assert Closest(dictionary)(hypotheses, gold) == 0
    assert Closest(dictionary, metric="chrf")(hypotheses, gold) == 0


def test_agrees_with_a_plain_loop_over_sentence_chrf(dictionary):
    rng = np.random.default_rng(1)
    closest = Closest(dictionary, metric="chrf")
    for _ in range(200):
        gold, *texts = (
            " ".join(rng.choice(list("abcdefghij"), rng.integers(1, 9))) for _ in range(9)
        )
        scores = [sacrebleu.sentence_chrf(text, [gold]).score for text in texts]
        selected = closest(nbest(dictionary, *texts), encode(dictionary, gold))
        assert selected == scores.index(max(scores))


def test_undoes_moses_tokenisation(dictionary):
    pytest.importorskip("sacremoses")
    for symbol in ("don", "&apos;t", "."):
        dictionary.add_symbol(symbol)
    closest = Closest(dictionary, moses_lang="en")
    assert closest.detokenise.text(encode(dictionary, "a don &apos;t .")) == "a don't."


def test_a_way_of_cutting_that_fairseq_does_not_know(dictionary):
    with pytest.raises(ValueError, match="--remove-bpe is 'spm', expected"):
        Closest(dictionary, remove_bpe="spm")


class TestMinimumBayesRisk:
    """The hypothesis most like the others."""

    @pytest.fixture
    def select(self, dictionary):
        return MinimumBayesRisk(dictionary)

    def test_takes_the_consensus(self, dictionary, select):
        hypotheses = nbest(dictionary, "a b c d", "e f g h", "e f i h", "e f g j")
        assert select(hypotheses, None) == 1

    def test_equal_texts_count_as_often_as_they_stand_there(self, dictionary, select):
        hypotheses = nbest(dictionary, "a b c", "e f g", "e f h", "a b c", "a b c")
        assert select(hypotheses, None) == 0

    def test_equals_go_to_the_teachers_favourite(self, dictionary, select):
        assert select(nbest(dictionary, "a b", "c d"), None) == 0
        assert select(nbest(dictionary, "a b"), None) == 0

    def test_is_a_plain_loop_over_sacrebleu(self, dictionary, select):
        hypotheses = nbest(dictionary, "a b c d", "a b d c e", "a c b", "h b c d e", "a b c i")
        texts = [select.detokenise.text(tokens) for tokens, _ in hypotheses]
        means = [
            sum(CHRF().sentence_score(one, [t]).score for t in texts[:i] + texts[i + 1 :])
            for i, one in enumerate(texts)
        ]
        assert select(hypotheses, None) == means.index(max(means))

    def test_weights_are_the_probabilities_of_whole_sentences(self, dictionary):
        """The text most like all is not the one most like a probable one."""
        weighted = MinimumBayesRisk(dictionary, has_weights=True)
        weighted.lenpen = 1.0
        texts = ["a b c d", "a b c e", "f g h i j", "f g h i d", "f g h i e"]
        lists = [encode(dictionary, text) for text in texts]
        # A score is divided by the length; the second counts e^18 times as much as others.
        totals = [-20.0, -2.0, -20.0, -21.0, -22.0]
        hypotheses = [(tokens, t / len(tokens)) for tokens, t in zip(lists, totals)]
        plain = [
            sum(
                np.exp(totals[j]) * CHRF().sentence_score(one, [texts[j]]).score
                for j in range(5)
                if j != i
            )
            / sum(np.exp(totals[j]) for j in range(5) if j != i)
            for i, one in enumerate(texts)
        ]
        np.testing.assert_allclose(weighted.values(hypotheses), plain, atol=1e-8)
        assert weighted(hypotheses, None) == plain.index(max(plain)) == 0
        assert MinimumBayesRisk(dictionary)(hypotheses, None) > 1

    def test_folders(self, dictionary):
        assert build_selector("mbr", dictionary).folder == "mbr"
        bleu = build_selector("mbr", dictionary, metric="bleu")
        assert bleu.folder == "mbr-bleu" and bleu.settings["metric"] == "bleu"
        assert build_selector("closest", dictionary).settings["metric"] == "bleu"
        weighted = build_selector("mbr", dictionary, "bleu", mbr_weights=True)
        assert weighted.folder == "mbr-bleu-weighted"
        assert weighted.settings["mbr_weights"] == "probability"
