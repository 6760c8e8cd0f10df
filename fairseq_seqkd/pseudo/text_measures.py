"""Measures of the text of a source, its translation and gold, for filters that need them."""

import functools
import math

from sacrebleu.metrics import CHRF

from fairseq_seqkd.decoding.faults import has_loop, numbers_differ
from fairseq_seqkd.decoding.text import Detokeniser


def gold_chrf(pair):
    """sacreBLEU's sentence chrF against gold, from 0 to 100; NaN without a gold target."""
    if pair.gold is None:
        return math.nan
    return CHRF().sentence_score(pair.translation, [pair.gold]).score


def lost_numbers(pair):
    """1 if source and translation do not have the same numbers."""
    return float(numbers_differ(pair.source, pair.translation))


def loops(pair):
    """1 if the translation repeats a phrase that the source does not repeat as often."""
    return float(has_loop(pair.translation, pair.source))


class TextPair:
    """The texts of a sentence pair, detokenised when they are asked for.

    Args:
        texts: `TextMeasures`, whose detokenisers it takes
        source, translation, gold: (length,) token ids with EOS; gold may be None
    """

    def __init__(self, texts, source, translation, gold):
        self._texts, self._tokens = texts, (source, translation, gold)

    @functools.cached_property
    def source(self):
        """The source's text."""
        return self._texts.of_source.text(self._tokens[0])

    @functools.cached_property
    def translation(self):
        """The translation's text."""
        return self._texts.of_target.text(self._tokens[1])

    @functools.cached_property
    def gold(self):
        """The gold target's text; None without one, or with an empty one."""
        tokens = self._tokens[2]
        if tokens is None or len(tokens) == 1:
            return None
        return self._texts.of_target.reference(tokens)


class TextMeasures:
    """Measures pairs; a callable that takes token ids as `TextPair` and returns numbers.

    Args:
        functions: list of functions of a `TextPair`
        split: `PairSplit`
        text: arguments of `Detokeniser`, how target tokens become text; sources are joined
            alike, and their Moses tokenisation is that of the source language
    """

    def __init__(self, functions, split, text):
        self.functions = functions
        self.of_source = self.of_target = None
        if functions:
            moses_lang = text.get("moses_lang") and split.source_lang
            how = {**text, "moses_lang": moses_lang}
            self.of_source = Detokeniser(split.dataset.src_dict, **how)
            self.of_target = Detokeniser(split.dataset.tgt_dict, **text)

    def __call__(self, source, translation, gold):
        """One number per function."""
        pair = TextPair(self, source, translation, gold)
        return [function(pair) for function in self.functions]
