"""Selectors: functions that take the training target from an n-best list."""

import abc
import copy
import functools

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.io.files import sha256
from fairseq_seqkd.io.text import TextFile
from fairseq_seqkd.pseudo.consensus import UTILITIES, expected_utility
from fairseq_seqkd.pseudo.external_scores import EXPORT, list_sizes, read_list_scores

# sacreBLEU's defaults for single sentences: exponential smoothing (one of Chen & Cherry
# 2014) and effective order for BLEU; character 6-grams for chrF.
METRICS = {
    "bleu": functools.partial(BLEU, smooth_method="exp", effective_order=True),
    "chrf": CHRF,
}


class Selector(abc.ABC):
    """Gives every hypothesis of a list a value, and selects the one with the highest.

    Among equals it selects the teacher's favourite.

    Attributes:
        name: of ``--select`` and ``--kd-targets``
        folder: of the data-bin in the store
        settings: entries of ``target_spec.json``
        needs_gold, needs_list: whether it compares with gold, or hypotheses with each other
        keeps_lists: whether the data-bin has all hypotheses of every list
        needs_store: whether it needs more than the list, and so cannot select online
        beam: of a new store
    """

    needs_gold = needs_list = needs_store = keeps_lists = False
    beam = 5

    def check(self, store):  # noqa: B027 - most need nothing
        """Raise a ValueError unless the `PseudoTargetStore` has what this selector needs."""

    def of_store(self, store):
        """This selector with what it needs of a `PseudoTargetStore` with all its chunks."""
        return self

    @abc.abstractmethod
    def values(self, hypotheses, gold=None, id_=None):
        """(hypotheses,) the value of each.

        Args:
            hypotheses: [(tokens, score)], best first, at least one
            gold: (length,) token ids; None without a gold target
            id_: the sentence's position in the split; None without a store
        """

    def ranking(self, hypotheses, gold=None, id_=None):
        """(hypotheses,) indices, the selected one first; arguments as for `values`."""
        return np.argsort(-self.values(hypotheses, gold, id_), kind="stable")

    def __call__(self, hypotheses, gold=None, id_=None):
        """The index of the selected hypothesis; arguments as for `values`."""
        return int(self.ranking(hypotheses, gold, id_)[0])


class Best(Selector):
    """Selects the teacher's best beam hypothesis (Kim & Rush 2016, section 3.2)."""

    name = folder = "best"
    settings = {"selector": "best"}

    def values(self, hypotheses, gold=None, id_=None):
        """All alike: the teacher's favourite is selected."""
        return np.zeros(len(hypotheses))


class Sampled(Best):
    """Keeps the whole list, from which a training draws another hypothesis in every epoch."""

    name = folder = "sampled"
    settings = {"selector": "sampled"}
    needs_list = needs_store = keeps_lists = True

    def check(self, store):  # noqa: B027 - most need nothing
        """Raise a ValueError unless total log-probabilities can be had of the scores."""
        if store.exists:
            store.length_penalty("'sampled' targets")


class BestAtLengthPenalty(Selector):
    """Selects the hypothesis with the best score at another length penalty than the search's.

    A score is the log-probability of all tokens, divided by their number to the power of the
    length penalty; EOS counts. Equal to decoding with that penalty, as far as the n-best list
    has the hypothesis.

    Args:
        of_search: the length penalty of the stored scores
        lenpen: the other one
    """

    name = "best"
    needs_list = True

    def __init__(self, of_search, lenpen):
        self.of_search, self.lenpen = of_search, lenpen
        self.folder = f"best-lenpen{lenpen:g}"
        self.settings = {"selector": self.name, "lenpen": lenpen}

    def values(self, hypotheses, gold=None, id_=None):
        """The scores of a list at the new length penalty, in nats."""
        return scores_at(self.lenpen, hypotheses, self.of_search)


def scores_at(lenpen, hypotheses, of_search):
    """Scores at another length penalty; at 0 they are total log-probabilities.

    Args:
        lenpen: the length penalty
        hypotheses: [(tokens, score)], with scores of the search
        of_search: the search's length penalty
    Returns:
        (hypotheses,) in nats
    """
    lengths = np.array([len(tokens) for tokens, _ in hypotheses], dtype=np.float64)
    return np.array([score for _, score in hypotheses]) * lengths ** (of_search - lenpen)


class _TextSelector(Selector):
    """A selector that compares texts by a metric; a subclass has a ``default_metric``."""

    needs_list = True
    beam = 35  # Kim & Rush 2016, section 4.2

    def __init__(self, dictionary, metric=None, **how):
        self.metric = metric or self.default_metric
        self.detokenise = Detokeniser(dictionary, **how)
        suffix = "" if self.metric == self.default_metric else f"-{self.metric}"
        self.folder = self.name + suffix
        text = settings_of_text(**how)
        self.settings = {"selector": self.name, "metric": self.metric, **text}


class Closest(_TextSelector):
    """Selects the hypothesis closest to gold, by sacreBLEU's sentence BLEU or chrF.

    It compares text with the subwords joined (Kim & Rush 2016, section 3.3). Without a gold
    target, or with an empty one, it selects the teacher's favourite.

    Args:
        dictionary: the target dictionary
        remove_bpe, moses_lang, spm_model: as for `Detokeniser`, errors included
        metric: a name in ``METRICS``; None: ``bleu``
    """

    name, default_metric = "closest", "bleu"
    needs_gold = True

    def values(self, hypotheses, gold=None, id_=None):
        """Each hypothesis' similarity to gold."""
        if gold is None or len(gold) == 1:  # EOS only
            return np.zeros(len(hypotheses))
        # The metric counts the n-grams of its references once.
        metric = METRICS[self.metric](references=[[self.detokenise.reference(gold)]])
        texts = [self.detokenise.text(tokens) for tokens, _ in hypotheses]
        # Different subwords often give the same text, which is scored once.
        scores = {text: metric.corpus_score([text], None).score for text in set(texts)}
        return np.array([scores[text] for text in texts])


class MinimumBayesRisk(_TextSelector):
    """Selects the list's consensus: the hypothesis that is most like all others on average.

    Each hypothesis is compared with the others of its list as references, equal texts counted
    as often as they stand there. With weights, a reference counts as much as the teacher's
    probability of the whole sentence, not of the mean token: the risk is an expectation over
    sentences.

    Args:
        dictionary, remove_bpe, moses_lang, spm_model: as for `Closest`
        metric: the utility, a name in ``METRICS``; None: ``chrf``
        has_weights: whether references are weighted by the teacher's probabilities, scaled so
            that those of the list add up to 1
    Source: Eikema & Aziz 2020 (arXiv 2005.10283), section 6; with weights Kumar & Byrne 2004.
    """

    name, default_metric = "mbr", "chrf"

    def __init__(self, dictionary, metric=None, has_weights=False, **how):
        super().__init__(dictionary, metric, **how)
        self.has_weights, self.lenpen = has_weights, None
        if has_weights:
            self.folder += "-weighted"
            self.settings["mbr_weights"] = "probability"

    def check(self, store):
        """Raise a ValueError for weights, if it is not known how scores were divided."""
        if self.has_weights and store.exists:
            store.length_penalty(_MBR_WEIGHTS)

    def of_store(self, store):
        """This selector with the length penalty of the store's search."""
        if self.has_weights:
            self.lenpen = store.length_penalty(_MBR_WEIGHTS)
        return self

    def values(self, hypotheses, gold=None, id_=None):
        """Each hypothesis' expected utility."""
        texts = [self.detokenise.text(tokens) for tokens, _ in hypotheses]
        weights = None
        if self.has_weights:
            totals = scores_at(0, hypotheses, self.lenpen)
            weights = np.exp(np.maximum(totals - totals.max(), -700))  # none is 0
        return expected_utility(UTILITIES[self.metric](texts), weights).round(9)


_MBR_WEIGHTS = "--mbr-weights"


class ExternalScores(Selector):
    """Selects the hypothesis that an outside model scores highest.

    Args:
        path: a file with one number a hypothesis, in the order of the exported n-best list, or
            the list itself with the scores as its last field; None for a training, which takes
            a data-bin that is there
    Raises:
        FileNotFoundError: there is no such file
    """

    name = folder = "scores"
    needs_list = needs_store = True

    def __init__(self, path=None):
        self.file = path and TextFile(path)
        self.settings = {"selector": self.name, "scores": self.file and self.file.sha256()}

    def check(self, store):
        """Raise a ValueError if there are no scores, or no lists that they could be of."""
        if self.file is None and not store.has_databin(self.folder):
            raise ValueError(
                f"'scores' targets: there is no data-bin {store.path(self.folder)!r}. Make it "
                "with fairseq-seqkd merge --select scores --scores FILE."
            )
        if not store.exists:
            raise ValueError(
                f"--select scores: there is no store at {store.root!r}, whose n-best lists the "
                f"scores could be of. Make it first, and export the lists ({EXPORT})."
            )

    def of_store(self, store):
        """This selector with the scores of every list; see `read_list_scores`."""
        selector = copy.copy(self)
        sizes = list_sizes(store)
        selector.ends = np.cumsum(sizes)
        selector.scores = read_list_scores(self.file, sizes)
        selector.file = None  # the processes that select need no file
        return selector

    def values(self, hypotheses, gold=None, id_=None):
        """The outside model's scores."""
        end = self.ends[id_]
        return self.scores[end - len(hypotheses) : end]


def settings_of_text(remove_bpe=None, moses_lang=None, spm_model=None):
    """How tokens become text, as entries of ``target_spec.json``."""
    return {
        "remove_bpe": "sentencepiece" if spm_model else remove_bpe,
        "moses_lang": moses_lang,
        **({"spm_model": sha256(spm_model)} if spm_model else {}),
    }


SELECTORS = {
    selector.name: selector
    for selector in (Best, Closest, MinimumBayesRisk, ExternalScores, Sampled)
}


def build_selector(name, dictionary, metric=None, mbr_weights=False, scores=None, **how):
    """Build a selector.

    Args:
        name: in ``SELECTORS``
        dictionary: the target dictionary
        metric: a name in ``METRICS``; None: the selector's default
        mbr_weights: as ``has_weights`` of `MinimumBayesRisk`
        scores: as ``path`` of `ExternalScores`
        how: remove_bpe, moses_lang, spm_model, as for `Detokeniser`
    Raises:
        ValueError: weights or scores for another selector; or as the selector
    """
    if mbr_weights and name != MinimumBayesRisk.name:
        raise ValueError(
            f"{_MBR_WEIGHTS} with --select {name}: it weights the hypotheses among which "
            "--select mbr looks for the consensus. Leave one of them out."
        )
    if scores is not None and name != ExternalScores.name:
        raise ValueError(
            f"--scores with --select {name}: expected --select scores beside it, which selects "
            "by them."
        )
    if name == MinimumBayesRisk.name:
        return MinimumBayesRisk(dictionary, metric, mbr_weights, **how)
    if name == ExternalScores.name:
        return ExternalScores(scores)
    if name in (Best.name, Sampled.name):
        return SELECTORS[name]()
    return Closest(dictionary, metric, **how)
