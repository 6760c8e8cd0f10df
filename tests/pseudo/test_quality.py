import pytest
import sacrebleu
from conftest import load_split, with_sentences

from fairseq_seqkd.pseudo import quality
from fairseq_seqkd.pseudo.quality import describe, quality_against_gold


@pytest.fixture
def measured(split):
    """measured(ids, **text): the quality of gold targets without their first words."""

    def call(ids=range(2, 60), split=split, **text):
        return quality_against_gold(split, list(ids), lambda i: split.dataset.tgt[i][1:], text)

    return call


def texts(split, ids):
    strings = [split.dataset.tgt_dict.string(split.dataset.tgt[i]) for i in ids]
    return [text.split(" ", 1)[1] if " " in text else "" for text in strings], strings


def expected(split, ids):
    shorter, gold = texts(split, ids)
    scores = sacrebleu.corpus_bleu(shorter, [gold]), sacrebleu.corpus_chrf(shorter, [gold])
    return [round(score.score, 2) for score in scores]


def test_is_sacrebleus_on_the_whole_corpus(measured, split, monkeypatch):
    monkeypatch.setattr(quality, "_BLOCK", 7)
    found = measured()
    assert [found["bleu"], found["chrf"]] == expected(split, range(2, 60))
    assert (found["sentences"], found["with_gold"], found["detokenised"]) == (58, 58, False)
    assert describe(found).endswith("against gold (58 sentences; tokens, not detokenised)")


def test_text_is_detokenised(measured):
    assert measured(remove_bpe="sentencepiece")["detokenised"]
    assert "tokens" not in describe(measured(remove_bpe="sentencepiece"))
    # Without spaces the words are one: BLEU needs four of them.
    assert measured(remove_bpe="sentencepiece")["bleu"] == 0 < measured()["bleu"]


def test_of_large_corpora_a_part_is_measured(measured, split, monkeypatch):
    monkeypatch.setattr(quality, "MAX_SENTENCES", 3)
    found = measured(range(5, 10))
    assert [found["bleu"], found["chrf"]] == expected(split, [5, 7, 9])
    assert "(3 of 5 sentences" in describe(found)


def test_sentences_without_gold_are_left_out(measured, data):
    split = with_sentences(load_split(data), 10)
    split.dataset.tgt[4] = split.dataset.tgt[4][-1:]
    split.dataset.tgt_sizes = split.dataset.tgt_sizes.copy()
    split.dataset.tgt_sizes[4] = 1
    assert measured(range(3, 6), split)["sentences"] == 2
    assert measured([4], split) is None
    split.dataset.tgt = None
    assert measured(range(10), split) is None
