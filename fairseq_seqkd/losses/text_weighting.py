"""Weights of a text: of its tokens' NLL, and of all that a sentence adds to the loss.

Both take the batch's `PositionStatistics`, counted over all targets. They hold in training
alone; validation weighs all texts alike.
"""

import math

from fairseq_seqkd.registry import Axis, Parameter

# Signed (positions,) weights of the target's NLL, 0 outside the counted mask.
NLL_WEIGHTINGS = Axis("nll_weighting")
# Non-negative (batch,) weights of all terms of the loss.
SENTENCE_WEIGHTINGS = Axis("sentence_weighting")

_FINITE = ("a number", math.isfinite)
_FROM_0 = ("a number from 0 upwards", lambda x: 0 <= x < math.inf)
CORRECT = Parameter(
    "nll_correct_weight",
    0.5,
    "weight of the NLL of a token that stands in the gold target",
    *_FINITE,
)
INCORRECT = Parameter(
    "nll_incorrect_weight",
    -0.5,
    "weight of the NLL of a token that does not; below 0 the student unlearns it",
    *_FINITE,
)
SUCCESS = Parameter(
    "sentence_success_power",
    1.0,
    "a of f^a (1 - f)^b, where f is the student's success",
    *_FROM_0,
)
FAILURE = Parameter(
    "sentence_failure_power",
    1.0,
    "b of f^a (1 - f)^b",
    *_FROM_0,
)

NLL_WEIGHTINGS.add_noop("uniform", "The NLL of every token of the data counts alike.")
SENTENCE_WEIGHTINGS.add_noop("uniform", "Every sentence counts alike.")


@NLL_WEIGHTINGS.option(correct=CORRECT, incorrect=INCORRECT)
def contrastive(statistics, *, correct=0.5, incorrect=-0.5):
    """Tokens of a hypothesis are learned if they stand in the gold target, else unlearned.

    A symbol stands in it wherever it stands, and however often.

    Source: Berger et al. 2023, contrastive markings (arXiv 2307.08416). How tokens are
        compared and the weights could not be found: these are this project's.
    """
    in_gold = statistics.in_gold_mask
    return (correct * in_gold + incorrect * ~in_gold) * statistics.counted_mask


@SENTENCE_WEIGHTINGS.option(success=SUCCESS, failure=FAILURE)
def paced(statistics, *, success=1.0, failure=1.0):
    """f^a (1 - f)^b: less for what the student can do already, and for what is beyond it.

    f is the student's mean probability of the sentence's target tokens.

    Source: PACED (arXiv 2603.11178), whose f is the fraction of eight samples that are right:
        a translation is not right or wrong, so that the probability stands in its place.
    """
    f = statistics.row_means((-statistics.student_nll).exp()).clamp(0, 1)
    return f**success * (1 - f) ** failure
