"""Selectors: functions that take the training target from an n-best list."""

import functools

from sacrebleu.metrics import BLEU, CHRF

from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.io.files import sha256

# sacreBLEU's defaults for single sentences: exponential smoothing (one of Chen & Cherry
# 2014) and effective order for BLEU; character 6-grams for chrF.
METRICS = {
    "bleu": functools.partial(BLEU, smooth_method="exp", effective_order=True),
    "chrf": CHRF,
}


class Best:
    """Selects the teacher's best beam hypothesis (Kim & Rush 2016, section 3.2)."""

    name = folder = "best"
    settings = {"selector": "best"}
    needs_gold = False

    def __call__(self, hypotheses, gold):
        """The index of the selected hypothesis.

        Args:
            hypotheses: [(tokens, score)], best first, at least one
            gold: (length,) token ids; None without a gold target
        """
        return 0


class Closest:
    """Selects the hypothesis closest to gold, by sacreBLEU's sentence BLEU or chrF.

    It compares text with the subwords joined. Among equally close hypotheses it selects the
    teacher's favourite (Kim & Rush 2016, section 3.3).

    Args:
        dictionary: the target dictionary
        remove_bpe, moses_lang, spm_model: as for `Detokeniser`, errors included
        metric: a name in ``METRICS``
    """

    name = "closest"
    needs_gold = True

    def __init__(
        self, dictionary, remove_bpe=None, metric="bleu", moses_lang=None, spm_model=None
    ):
        self.detokenise = Detokeniser(dictionary, remove_bpe, moses_lang, spm_model)
        self.metric = METRICS[metric]
        self.folder = "closest" if metric == "bleu" else f"closest-{metric}"
        self.settings = {
            "selector": "closest",
            "metric": metric,
            "remove_bpe": "sentencepiece" if spm_model else remove_bpe,
            "moses_lang": moses_lang,
            **({"spm_model": sha256(spm_model)} if spm_model else {}),
        }

    def __call__(self, hypotheses, gold):
        """The index of the selected hypothesis; arguments as for `Best`."""
        # The metric counts the n-grams of its references once.
        metric = self.metric(references=[[self.detokenise.reference(gold)]])
        texts = [self.detokenise.text(tokens) for tokens, _ in hypotheses]
        # Different subwords often give the same text, which is scored once.
        scores = {text: metric.corpus_score([text], None).score for text in set(texts)}
        return texts.index(max(texts, key=scores.get))


def build_selector(name, dictionary, **options):
    """The selector called ``name``, ``best`` or ``closest``; options as for `Closest`."""
    if name == Best.name:
        return Best()
    return Closest(dictionary, **options)
