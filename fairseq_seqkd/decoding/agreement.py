"""Compares the translations of a converted model with fairseq's.

A conversion can go wrong without an error: the model translates, but not as the one that was
trained. A quantised model is compared with the one in float32.
"""

from typing import NamedTuple, Optional

import numpy as np
import sacrebleu

from fairseq_seqkd.decoding.search import SearchOptions

GREEDY = SearchOptions(beam=1)
SENTENCES = 200
_LEAST_PERCENT = 90
_LEAST_BLEU = 60


class Disagreement(ValueError):
    """A converted model translates otherwise than its original."""

    exit_status = 1


class Agreement(NamedTuple):
    """How far the best hypotheses of a converted model are those of its original.

    Attributes:
        sentences: how many were compared; those that neither model finished are not
        equal: how many of them the conversion to float32 translates as fairseq does
        bleu: corpus BLEU of a quantised model's tokens against float32's; None without one
        shortlist_bleu: the same of a model with its vocabulary map against it without
    """

    sentences: int
    equal: int
    bleu: Optional[float] = None
    shortlist_bleu: Optional[float] = None

    def __str__(self):
        text = f"{self.equal} of {self.sentences} translations equal fairseq's"
        if self.bleu is not None:
            text += f"; quantised, BLEU {self.bleu} against float32"
        if self.shortlist_bleu is not None:
            text += f"; with its shortlist, BLEU {self.shortlist_bleu} against without"
        return text

    def refuse(self, remedy):
        """Raise `Disagreement` if a model differs too much.

        Two sentences may always differ: scores that are nearly equal change places.

        Args:
            remedy: what to do about it
        """
        differing = self.sentences - self.equal
        if differing > 2 and 100 * self.equal < _LEAST_PERCENT * self.sentences:
            raise Disagreement(
                f"converted to CTranslate2, the model translates otherwise: {self}, expected "
                f"{_LEAST_PERCENT} %. {remedy}"
            )
        if self.bleu is not None and self.bleu < _LEAST_BLEU:
            raise Disagreement(
                f"quantised, the model translates otherwise: {self}, expected BLEU "
                f"{_LEAST_BLEU} or more. Take another type, such as float32. {remedy}"
            )
        if self.shortlist_bleu is not None and self.shortlist_bleu < _LEAST_BLEU:
            raise Disagreement(
                f"with its shortlist, the model translates otherwise: {self}, expected BLEU "
                f"{_LEAST_BLEU} or more. Allow more symbols (--shortlist-size), or count them "
                f"from text that is like this. {remedy}"
            )


def compare_engines(original, converted, quantised, dataset, ids, shortlisted=None):
    """Decode some sentences with each engine; returns the `Agreement`.

    Args:
        original: the fairseq engine
        converted: the CTranslate2 engine in float32
        quantised: the CTranslate2 engine with another type; None: there is none
        dataset: a fairseq LanguagePairDataset
        ids: sentence ids; at most `SENTENCES` of them, evenly spread, are decoded
        shortlisted: the engine as it is shipped, with a vocabulary map; None: there is none
    """
    ids = evenly_spread(ids, SENTENCES)
    expected, found, quantised, shortlisted = (
        engine and best_hypotheses(engine, dataset, ids)
        for engine in (original, converted, quantised, shortlisted)
    )
    compared = [id_ for id_ in ids.tolist() if expected[id_] or found[id_]]
    equal = sum(expected[id_] == found[id_] for id_ in compared)
    bleu = _bleu(quantised, found, compared)
    return Agreement(
        len(compared), equal, bleu, _bleu(shortlisted, quantised or found, compared)
    )


def _bleu(hypotheses, references, compared):
    return round(token_bleu(hypotheses, references), 2) if hypotheses and compared else None


def evenly_spread(ids, number):
    """At most ``number`` of some sentence ids, from the whole range of them."""
    ids = np.asarray(ids, dtype=np.int64)
    return ids[np.linspace(0, len(ids) - 1, min(number, len(ids))).astype(np.int64)]


def best_hypotheses(engine, dataset, ids):
    """{id: token ids of the best hypothesis}; without one, an empty list."""
    return {
        id_: hypotheses[0][0].tolist() if hypotheses else []
        for id_, hypotheses in engine(dataset, ids)
    }


def token_bleu(hypotheses, references):
    """Corpus BLEU of token ids; both are as `best_hypotheses` gives them."""
    texts = [
        [" ".join(map(str, tokens[id_][:-1])) for id_ in references]
        for tokens in (hypotheses, references)
    ]
    return sacrebleu.corpus_bleu(texts[0], texts[1:], tokenize="none").score
