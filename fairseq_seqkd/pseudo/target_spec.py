"""What is wanted of a data-bin, and whether a store can give it."""

import os
from dataclasses import dataclass
from typing import Any, Dict, Optional

from fairseq_seqkd.chunked.manifest import differences
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.pseudo.filters import check_filters


@dataclass
class TargetSpec:
    """How targets are chosen.

    Attributes:
        selector: what chooses among the hypotheses, see ``select.py``
        filters: {name: value}, see ``filters.py``
        drop: whether what a filter finds is left out, and not replaced by gold
        folder: the data-bin's name in the store; None is the selector's
    Raises:
        ValueError: a filter's value is out of range
    """

    selector: Any
    filters: Optional[Dict[str, Any]] = None
    drop: bool = False
    folder: Optional[str] = None

    def __post_init__(self):
        self.filters = {name: value for name, value in (self.filters or {}).items() if value}
        check_filters(self.filters)
        self.folder = self.folder or self.selector.folder

    @property
    def settings(self):
        """What ``target_spec.json`` says of it."""
        action = ("drop" if self.drop else "gold") if self.filters else None
        return {
            **self.selector.settings,
            "filters": self.filters,
            "filter_action": action,
        }

    def check(self, databin, exactly=True):
        """Refuse a data-bin whose targets were chosen in another way.

        Args:
            databin: its folder
            exactly: False lets everything pass that this spec says nothing of
        Raises:
            ValueError: lists every entry that differs
        """
        report = read_json(os.path.join(databin, "target_spec.json"))
        found = differences(report, self.settings, exactly=exactly)
        if found:
            raise ValueError(
                f"the targets in {databin!r} were chosen otherwise:\n  "
                + "\n  ".join(found)
                + "\nTake the flags they were chosen with; or give the new choice a name of "
                "its own (--databin); or remove this folder (the n-best lists stay) and they "
                "are chosen again."
            )


def check_target_spec(spec, split, nbest, has_scores=True):
    """Refuse what cannot be chosen.

    Args:
        spec: `TargetSpec`
        split: `Split`
        nbest: how many hypotheses a sentence the store has, or is to have
        has_scores: whether the hypotheses have the teacher's scores
    Raises:
        ValueError: there is one hypothesis a sentence, no gold to be close to, or no score
    """
    name = spec.selector.name
    if not split.has_gold and spec.selector.needs_gold:
        raise ValueError(
            f"--select {name}: {split.name!r} in {split.folder!r} has sources alone, there is "
            "no gold target to be close to. Take --select best."
        )
    if not split.has_gold and spec.filters and not spec.drop:
        raise ValueError(
            f"--filter-action gold: {split.name!r} in {split.folder!r} has no gold targets. "
            "Take --filter-action drop."
        )
    if not has_scores and "score_percentile" in spec.filters:
        raise ValueError(
            "--filter-score-percentile: the store was imported from plain text, which has no "
            "scores"
        )
    if spec.selector.needs_gold and nbest < 2:
        raise ValueError(
            f"--select {name} with {nbest} hypothesis a sentence: there is nothing to choose "
            f"{name!r} from. Make a store with an n-best of 2 or more (--nbest, in training "
            "--teacher-nbest; Kim & Rush: 35)."
        )
