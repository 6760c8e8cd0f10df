"""Which hypothesis of an n-best list becomes the target."""

import functools

import numpy as np
from fairseq.data import data_utils
from fairseq.data.encoders.moses_tokenizer import MosesTokenizer, MosesTokenizerConfig
from sacrebleu.metrics import BLEU, CHRF

# sacreBLEU's own defaults for single sentences: exponential smoothing (one of Chen &
# Cherry 2014) and effective order; character 6-grams.
METRICS = {
    "bleu": functools.partial(BLEU, smooth_method="exp", effective_order=True),
    "chrf": CHRF,
}


UNKNOWN_IN_REFERENCE = "UNKNOWNTOKENINREF"  # fairseq's own word for it


class Best:
    """The teacher's best beam hypothesis (Kim & Rush 2016, section 3.2)."""

    name = folder = "best"
    settings = {"selection": "best"}
    needs_gold = False

    def __call__(self, hypotheses, gold):
        """The index of the choice.

        Args:
            hypotheses: [(tokens, score)], best first, at least one
            gold: (length,) token ids; None where there is none
        """
        return 0


class Closest:
    """The hypothesis nearest to gold by sentence BLEU or chrF, as sacreBLEU measures them.

    Measured on text without subwords. Of equally close ones the teacher's favourite is
    taken (Kim & Rush 2016, section 3.3).

    Args:
        dictionary: the target dictionary
        remove_bpe: how the text was cut into subwords, as in fairseq's --remove-bpe
        metric: a name in ``METRICS``
        moses_lang: the language whose Moses tokenisation is undone; None: not tokenised
    Raises:
        ValueError: a ``remove_bpe`` that fairseq does not know, or sacremoses is missing
    """

    name = "closest"
    needs_gold = True

    def __init__(self, dictionary, remove_bpe=None, metric="bleu", moses_lang=None):
        self.symbols = np.array(dictionary.symbols, dtype=object)
        self.unk = dictionary.unk()
        self.remove_bpe = remove_bpe
        check_remove_bpe(remove_bpe)
        self.metric = METRICS[metric]
        self.moses = moses_lang and moses(moses_lang)
        self.folder = "closest" if metric == "bleu" else f"closest-{metric}"
        self.settings = {
            "selection": "closest",
            "metric": metric,
            "remove_bpe": remove_bpe,
            "moses_lang": moses_lang,
        }

    def text(self, tokens):
        """What a person would read; (length,) token ids end in EOS."""
        text = data_utils.post_process(" ".join(self.symbols[tokens[:-1]]), self.remove_bpe)
        return self.moses.decode(text) if self.moses else text

    def __call__(self, hypotheses, gold):
        # An unknown word in both must not count as a match.
        reference = self.text(gold).replace(self.symbols[self.unk], UNKNOWN_IN_REFERENCE)
        # The reference's n-grams are counted once.
        metric = self.metric(references=[[reference]])
        texts = [self.text(tokens) for tokens, _ in hypotheses]
        # Subwords differ more often than text does: no text is measured twice.
        scores = {text: metric.corpus_score([text], None).score for text in set(texts)}
        return texts.index(max(texts, key=scores.get))


def check_remove_bpe(remove_bpe):
    """Refuse a way to join subwords that fairseq does not know."""
    try:
        data_utils.post_process("", remove_bpe)
    except NotImplementedError as error:
        raise ValueError(
            f"--remove-bpe is {remove_bpe!r}, expected what fairseq knows: sentencepiece, "
            "subword_nmt, '@@ ', wordpiece, letter, _EOW or none"
        ) from error


def moses(lang):
    """fairseq's Moses tokenizer for a language.

    Raises:
        ValueError: sacremoses is not installed
    """
    try:
        return MosesTokenizer(MosesTokenizerConfig(source_lang=lang, target_lang=lang))
    except ImportError as error:
        raise ValueError("undoing Moses tokenisation needs: pip install sacremoses") from error


def build_selector(name, dictionary, remove_bpe=None, metric="bleu", moses_lang=None):
    """The selector called ``name``: ``best`` or ``closest``."""
    if name == Best.name:
        return Best()
    return Closest(dictionary, remove_bpe, metric, moses_lang)
