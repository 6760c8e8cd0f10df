"""Selectors: functions that take the training target from an n-best list."""

import functools

from sacrebleu.metrics import BLEU, CHRF

from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.io.files import sha256
from fairseq_seqkd.pseudo.consensus import UTILITIES, expected_utility

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
    needs_gold = needs_list = False
    beam = 5  # of a new store

    def __call__(self, hypotheses, gold):
        """The index of the selected hypothesis.

        Args:
            hypotheses: [(tokens, score)], best first, at least one
            gold: (length,) token ids; None without a gold target
        """
        return 0


class BestAtLengthPenalty:
    """Selects the hypothesis with the best score at another length penalty than the search's.

    A score is the log-probability of all tokens, divided by their number to the power of the
    length penalty; EOS counts. Equal to decoding with that penalty, as far as the n-best list
    has the hypothesis.

    Args:
        of_search: the length penalty of the stored scores
        lenpen: the other one
    """

    name = "best"
    needs_gold, needs_list = False, True

    def __init__(self, of_search, lenpen):
        self.of_search, self.lenpen = of_search, lenpen
        self.folder = f"best-lenpen{lenpen:g}"
        self.settings = {"selector": self.name, "lenpen": lenpen}

    def scores(self, hypotheses):
        """The scores of a list at the new length penalty, in nats."""
        power = self.of_search - self.lenpen
        return [score * len(tokens) ** power for tokens, score in hypotheses]

    def __call__(self, hypotheses, gold):
        """The index of the selected hypothesis; arguments as for `Best`."""
        scores = self.scores(hypotheses)
        return scores.index(max(scores))


class _TextSelector:
    """A selector that compares texts by a metric; a subclass has a ``default_metric``."""

    def __init__(self, dictionary, metric=None, **how):
        self.metric = metric or self.default_metric
        self.detokenise = Detokeniser(dictionary, **how)
        suffix = "" if self.metric == self.default_metric else f"-{self.metric}"
        self.folder = self.name + suffix
        text = _settings_of_text(**how)
        self.settings = {"selector": self.name, "metric": self.metric, **text}


class Closest(_TextSelector):
    """Selects the hypothesis closest to gold, by sacreBLEU's sentence BLEU or chrF.

    It compares text with the subwords joined. Among equally close hypotheses it selects the
    teacher's favourite (Kim & Rush 2016, section 3.3).

    Args:
        dictionary: the target dictionary
        remove_bpe, moses_lang, spm_model: as for `Detokeniser`, errors included
        metric: a name in ``METRICS``; None: ``bleu``
    """

    name, default_metric = "closest", "bleu"
    needs_gold = needs_list = True
    beam = 35  # Kim & Rush 2016, section 4.2

    def __call__(self, hypotheses, gold):
        """The index of the selected hypothesis; arguments as for `Best`."""
        # The metric counts the n-grams of its references once.
        metric = METRICS[self.metric](references=[[self.detokenise.reference(gold)]])
        texts = [self.detokenise.text(tokens) for tokens, _ in hypotheses]
        # Different subwords often give the same text, which is scored once.
        scores = {text: metric.corpus_score([text], None).score for text in set(texts)}
        return texts.index(max(texts, key=scores.get))


class MinimumBayesRisk(_TextSelector):
    """Selects the list's consensus: the hypothesis that is most like all others on average.

    Each hypothesis is compared with the others of its list as references, equal texts counted
    as often as they stand there. Among equals it selects the teacher's favourite.

    Args:
        dictionary, remove_bpe, moses_lang, spm_model: as for `Closest`
        metric: the utility, a name in ``METRICS``; None: ``chrf``
    Source: Eikema & Aziz 2020 (arXiv 2005.10283), section 6.
    """

    name, default_metric = "mbr", "chrf"
    needs_gold, needs_list = False, True
    beam = 35

    def __call__(self, hypotheses, gold):
        """The index of the selected hypothesis; arguments as for `Best`."""
        texts = [self.detokenise.text(tokens) for tokens, _ in hypotheses]
        return int(expected_utility(UTILITIES[self.metric](texts)).round(9).argmax())


def _settings_of_text(remove_bpe=None, moses_lang=None, spm_model=None):
    """How tokens become text, as entries of ``target_spec.json``."""
    return {
        "remove_bpe": "sentencepiece" if spm_model else remove_bpe,
        "moses_lang": moses_lang,
        **({"spm_model": sha256(spm_model)} if spm_model else {}),
    }


SELECTORS = {selector.name: selector for selector in (Best, Closest, MinimumBayesRisk)}


def build_selector(name, dictionary, metric=None, **how):
    """Build a selector.

    Args:
        name: in ``SELECTORS``
        dictionary: the target dictionary
        metric: a name in ``METRICS``; None: the selector's default
        how: remove_bpe, moses_lang, spm_model, as for `Detokeniser`
    """
    if name == Best.name:
        return Best()
    return SELECTORS[name](dictionary, metric, **how)
