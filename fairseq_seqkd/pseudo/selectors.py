"""Which hypothesis of an n-best list becomes the target."""

import functools

from sacrebleu.metrics import BLEU, CHRF

from fairseq_seqkd.decoding.text import Detokeniser

# sacreBLEU's own defaults for single sentences: exponential smoothing (one of Chen &
# Cherry 2014) and effective order; character 6-grams.
METRICS = {
    "bleu": functools.partial(BLEU, smooth_method="exp", effective_order=True),
    "chrf": CHRF,
}


class Best:
    """The teacher's best beam hypothesis (Kim & Rush 2016, section 3.2)."""

    name = folder = "best"
    settings = {"spec": "best"}
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
        remove_bpe, moses_lang: see `Detokeniser`, which also
            says what is raised
        metric: a name in ``METRICS``
    """

    name = "closest"
    needs_gold = True

    def __init__(self, dictionary, remove_bpe=None, metric="bleu", moses_lang=None):
        self.detokenise = Detokeniser(dictionary, remove_bpe, moses_lang)
        self.metric = METRICS[metric]
        self.folder = "closest" if metric == "bleu" else f"closest-{metric}"
        self.settings = {
            "spec": "closest",
            "metric": metric,
            "remove_bpe": remove_bpe,
            "moses_lang": moses_lang,
        }

    def __call__(self, hypotheses, gold):
        # The reference's n-grams are counted once.
        metric = self.metric(references=[[self.detokenise.reference(gold)]])
        texts = [self.detokenise.text(tokens) for tokens, _ in hypotheses]
        # Subwords differ more often than text does: no text is measured twice.
        scores = {text: metric.corpus_score([text], None).score for text in set(texts)}
        return texts.index(max(texts, key=scores.get))


def build_selector(name, dictionary, remove_bpe=None, metric="bleu", moses_lang=None):
    """The selector called ``name``: ``best`` or ``closest``."""
    if name == Best.name:
        return Best()
    return Closest(dictionary, remove_bpe, metric, moses_lang)
