"""The specification of a data-bin's targets: the selector and the filters."""

import math
import os
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Optional

from fairseq_seqkd.chunked.manifest import differences
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.pseudo.filters import check_filters, measures_of
from fairseq_seqkd.pseudo.selectors import Best, BestAtLengthPenalty, settings_of_text

ALL = "all"  # the entry ``keep`` of a data-bin with whole n-best lists


@dataclass
class TargetSpec:
    """Specifies how the targets of a data-bin are selected and filtered.

    Attributes:
        selector: takes one hypothesis of an n-best list, see ``selectors.py``
        filters: {name: value}, see ``filters.py``
        drop: whether a filtered sentence is dropped; False: it keeps its gold target
        folder: the data-bin's name in the store; None: the selector's
        keep: hypotheses per sentence, each a pair of its own
        text: arguments of `Detokeniser`, how tokens become the text that is measured
        measures_quality: whether BLEU and chrF against gold are reported
    Raises:
        ValueError: a filter's value is out of range
    """

    selector: Any
    filters: Optional[Dict[str, Any]] = None
    drop: bool = False
    folder: Optional[str] = None
    keep: int = 1
    text: Dict[str, Any] = field(default_factory=dict)
    measures_quality: bool = True

    def __post_init__(self):
        check_filters(self.filters or {})
        self.filters = {name: value for name, value in (self.filters or {}).items() if value}
        if self.keep < 1:
            raise ValueError(f"--keep is {self.keep}, expected 1 or more")
        if self.selector.keeps_lists:
            self._check_lists()
        suffix = f"-keep{self.keep}" if self.keep > 1 else ""
        self.folder = self.folder or self.selector.folder + suffix

    def _check_lists(self):
        """Refuse what does not go with whole lists."""
        if self.keep > 1:
            raise ValueError(
                f"--keep {self.keep} with 'sampled' targets, which keep the whole list. Leave "
                "one of them out."
            )
        if self.filters and self.drop:
            raise ValueError(
                "--filter-action drop with 'sampled' targets: a training finds the lists by "
                "the sentences of the data. Expected --filter-action gold."
            )

    def rows_per_sentence(self, store):
        """The rows of `SelectedHypotheses` per sentence, in a `PseudoTargetStore`."""
        return store.manifest["search"]["nbest"] if self.selector.keeps_lists else self.keep

    @property
    def settings(self):
        """The specification as entries of ``target_spec.json``."""
        action = ("drop" if self.drop else "gold") if self.filters else None
        filters = {
            name: getattr(value, "settings", value) for name, value in self.filters.items()
        }
        text = settings_of_text(**self.text) if measures_of(self.filters) else None
        return {
            **self.selector.settings,
            "keep": ALL if self.selector.keeps_lists else self.keep if self.keep > 1 else None,
            "filters": filters,
            "filter_text": text,
            "filter_action": action,
        }

    def check(self, databin, exactly=True):
        """Refuse a data-bin whose targets were selected in another way.

        Args:
            databin: its folder
            exactly: False accepts anything for entries that this specification leaves open
        Raises:
            ValueError: lists every entry that differs
        """
        report = read_json(os.path.join(databin, "target_spec.json"))
        if not self.settings["keep"] and report.get("keep") and not exactly:
            raise ValueError(f"{databin!r} {pairs_without_ids(report)}")
        lines = differences(report, self.settings, exactly=exactly)
        if lines:
            raise ValueError(
                f"the targets in {databin!r} were selected with other settings:\n  "
                + "\n  ".join(lines)
                + "\nUse the flags they were selected with; or name another data-bin "
                "(--databin); or remove this folder (the n-best lists stay) to select again."
            )


def pairs_without_ids(report):
    """The end of a message about a data-bin of several pairs per sentence.

    Args:
        report: the content of its ``target_spec.json``
    """
    made = "is of --kd-targets sampled"
    if report["keep"] != ALL:
        made = f"was made with --keep {report['keep']}"
    return (
        f"{made}: it has several pairs per sentence, and not "
        "the sentence ids of the data. Train on it with --task translation and without "
        "--pseudo-targets, or select one hypothesis (fairseq-seqkd merge)."
    )


def check_target_spec(spec, split, nbest, has_scores=True):
    """Refuse a specification that the data or the store cannot satisfy.

    Args:
        spec: `TargetSpec`
        split: `PairSplit`
        nbest: the store's hypotheses per sentence
        has_scores: whether the store's hypotheses have scores
    Raises:
        ValueError: one hypothesis per sentence, no gold to fall back on, or no scores
    """
    if spec.filters and not spec.drop and not split.has_gold:
        raise ValueError(
            f"--filter-action gold: {split.name!r} in {split.folder!r} has no gold targets. "
            "Use --filter-action drop."
        )
    if not has_scores and "score_percentile" in spec.filters:
        raise ValueError(
            "--filter-score-percentile: the store was imported from plain text, which has no "
            "scores"
        )
    if spec.keep > nbest:
        raise ValueError(
            f"--keep is {spec.keep}, and the store has {nbest} hypotheses per sentence: "
            "expected no more than that. Make a store with a larger --nbest (fairseq-seqkd "
            "generate)."
        )
    name = spec.selector.name
    if spec.selector.needs_list and nbest < 2:
        raise ValueError(
            f"{name!r} targets with {nbest} hypothesis per sentence: there is nothing to "
            f"select {name!r} from. Make a store with an n-best of 2 or more (fairseq-seqkd "
            "generate --nbest, or fairseq-train --teacher-nbest; Kim & Rush: 35)."
        )


def at_length_penalty(spec, lenpen, store, split, folder=None):
    """The `TargetSpec` that selects by another length penalty than the search's.

    Args:
        spec: `TargetSpec` of the selector ``best``
        lenpen: the penalty
        store: `PseudoTargetStore`
        split: `PairSplit`
        folder: the data-bin's name; None: by the penalty
    Raises:
        ValueError: the penalty is no number, another selector was asked for, or the scores of
            the store are not known to be divided by lengths
    """
    name = spec.selector.name
    if not math.isfinite(lenpen):
        raise ValueError(f"--lenpen is {lenpen}, expected a number such as 1.4")
    if name != Best.name:
        raise ValueError(
            f"--lenpen with --select {name}: it ranks by the teacher's scores, and the other "
            "compares texts. Leave one of them out."
        )
    selector = BestAtLengthPenalty(store.length_penalty("--lenpen"), lenpen)
    spec = replace(spec, selector=selector, folder=folder)
    check_target_spec(spec, split, store.manifest["search"]["nbest"])
    return spec
