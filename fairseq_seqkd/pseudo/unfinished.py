"""Warns of a teacher that finishes few of its translations, and stops a training on them."""

import logging
import os
from collections import Counter

from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.pseudo.store import STATUSES

logger = logging.getLogger(__name__)

WARN_ABOVE, STOP_ABOVE = 0.01, 0.2
# A sentence that is not empty and has one of them should have had a hypothesis.
_REASONS = STATUSES[2:]


class TooManyUnfinished(ValueError):
    """The teacher finished no hypothesis for too many sentences."""

    exit_status = 3


def count_unfinished(report):
    """Count the sentences for which the teacher finished no hypothesis.

    Args:
        report: the content of a data-bin's ``target_spec.json``
    Returns:
        {reason: number of such sentences}, and the number of all sentences but the empty ones
    """
    numbers = report["sentences"]
    without = Counter(numbers["gold"]) + Counter(numbers["dropped"])
    total = numbers["teacher"] + sum(without.values()) - without["empty source"]
    return {reason: without[reason] for reason in _REASONS if without[reason]}, total


def check_accepted(fraction):
    """Raise a ValueError if the value of ``--accept-unfinished`` is out of range."""
    if fraction is not None and not 0 <= fraction <= 1:
        raise ValueError(f"--accept-unfinished is {fraction}, expected a number from 0 to 1")


def check_unfinished(databin, accepted=None, model="teacher"):
    """Warn if the teacher finished no hypothesis for more than 1 % of the sentences.

    What a user's filters reject is not counted, and neither are empty sources.

    Args:
        databin: its folder
        accepted: the value of ``--accept-unfinished``: the largest fraction that is accepted;
            None: ``STOP_ABOVE``
        model: the one that generated, in words
    Raises:
        TooManyUnfinished: they are more than that
    """
    limit = STOP_ABOVE if accepted is None else accepted
    reasons, total = count_unfinished(read_json(os.path.join(databin, "target_spec.json")))
    unfinished = sum(reasons.values())
    fraction = unfinished / max(total, 1)
    why = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
    text = (
        f"{databin}: the {model} finished no hypothesis for {unfinished} of {total} sentences, "
        f"{100 * fraction:.1f} % ({why})"
    )
    if fraction > limit:
        raise TooManyUnfinished(
            f"{text}: more than {100 * limit:g} %, and a student would learn little from it. "
            f"Check the {model} (fairseq-seqkd evaluate), its dictionaries and --max-len-b. "
            "The data-bin is finished: --accept-unfinished 1 takes it as it is."
        )
    if fraction > WARN_ABOVE:
        logger.warning("%s", text)
