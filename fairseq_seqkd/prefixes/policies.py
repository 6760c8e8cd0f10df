"""The options of ``--kd-prefixes`` and their flags: functions that make a policy."""

import math
from dataclasses import replace

from fairseq_seqkd.decoding.token_rules import (
    Drawing,
    InterleavedTokens,
    StudentTokens,
    SwitchedTokens,
)
from fairseq_seqkd.losses.mixtures import jsd
from fairseq_seqkd.losses.schedules import SCHEDULES
from fairseq_seqkd.losses.support import Support
from fairseq_seqkd.prefixes.buffer import NAMES
from fairseq_seqkd.prefixes.replay import FRACTION, AdaptiveFraction, ReplayedRows
from fairseq_seqkd.prefixes.row_rules import EveryRow, LengthLimit, MixedRows
from fairseq_seqkd.prefixes.student_rows import StudentRows
from fairseq_seqkd.registry import Axis, Parameter

PREFIXES = Axis("kd_prefixes")

# Ranges: in words, and a test.
_ABOVE_0 = ("a number above 0", lambda x: 0 < x < math.inf)
_FROM_0 = ("a number from 0 upwards", lambda x: 0 <= x < math.inf)
_TO_1 = ("a number above 0, up to 1", lambda x: 0 < x <= 1)

SCHEDULE = Parameter(
    "kd_schedule",
    "exponential",
    "how the probability that a row keeps its data target falls from update to update",
    axis=SCHEDULES,
)
COIN = Parameter(
    "kd_coin",
    "row",
    "whether one draw decides for a row or for the whole batch",
    allowed=("row", "batch"),
)
TOPK = Parameter(
    "kd_sampling_topk",
    1,
    "the student draws among its k most probable symbols; 1 is greedy, -1 draws among all",
    "-1 or a whole number from 1 upwards",
    lambda x: x == -1 or x >= 1,
)
TEMPERATURE = Parameter(
    "kd_sampling_temperature",
    1.0,
    "divides the student's logits before it draws",
    *_ABOVE_0,
)
TOPP = Parameter(
    "kd_sampling_topp",
    1.0,
    "the student draws among the fewest symbols whose probabilities sum to this",
    *_TO_1,
)
TEACHER_TEMPERATURE = Parameter(
    "kd_replacement_temperature",
    1.0,
    "divides the teacher's logits before it draws a token in the place of the student's",
    *_ABOVE_0,
)
TEACHER_TOPP = Parameter(
    "kd_replacement_topp",
    1.0,
    "the teacher draws such a token among the fewest symbols whose probabilities sum to this",
    *_TO_1,
)
THRESHOLD = Parameter(
    "kd_switch_threshold",
    0.3,
    "the teacher's token stands where the Jensen-Shannon divergence of the two is above "
    "threshold * exp(-decay * position), in nats",
    *_FROM_0,
)
DECAY = Parameter(
    "kd_switch_decay",
    0.05,
    "see --kd-switch-threshold; positions are counted from 0",
    *_FROM_0,
)
ACCEPT = Parameter(
    "kd_accept_topk",
    25,
    "the student's token is kept if it is among the teacher's k most probable symbols",
    "a whole number from 0 upwards",
    lambda x: x >= 0,
)
CAPACITY = Parameter(
    "kd_replay_capacity",
    1000,
    "the most generated targets that are kept, of all processes together",
    "a whole number from 1 upwards",
    lambda x: x >= 1,
)
FIRST_FRACTION = Parameter(
    "kd_replay_fraction",
    0.0,
    "phi, the fraction of batches with the student's targets, until a validation raises it",
    "a number from 0 to 1",
    lambda x: 0 <= x <= 1,
)
REFERENCE = Parameter(
    "kd_replay_reference",
    0.0,
    "the validation's nll_loss before training, in bits as it is logged; 0: the first "
    "validation's",
    *_FROM_0,
)
TOLERANCE = Parameter(
    "kd_replay_tolerance",
    0.1,
    "phi grows by 0.1 where the validation's NLL is worse than the reference by this, in nats",
    *_FROM_0,
)
MAX_LEN_A = Parameter(
    "kd_max_len_a",
    1.2,
    "the student generates at most a * (source tokens) + b tokens: a",
    *_FROM_0,
)
MAX_LEN_B = Parameter(
    "kd_max_len_b",
    3,
    "the student generates at most a * (source tokens) + b tokens: b",
    "a whole number from 1 upwards",
    lambda x: x >= 1,
)
LIMITS = {"max_len_a": MAX_LEN_A, "max_len_b": MAX_LEN_B}
STUDENT_DRAWS = {"temperature": TEMPERATURE, "topp": TOPP}
BOTH_DRAW = {
    "topk": replace(TOPK, default=-1),
    **STUDENT_DRAWS,
    "teacher_temperature": TEACHER_TEMPERATURE,
    "teacher_topp": TEACHER_TOPP,
}

PREFIXES.add_noop("data", "Every row keeps its data target.")


@PREFIXES.option("student", schedule=SCHEDULE, coin=COIN, topk=TOPK, **STUDENT_DRAWS, **LIMITS)
def student_policy(schedule, coin, topk, temperature, topp, max_len_a, max_len_b):
    """A row keeps its data target with probability beta, else the student generates one."""
    token_rule = StudentTokens(Drawing(topk, temperature, topp))
    return StudentRows(MixedRows(schedule, coin), token_rule, LengthLimit(max_len_a, max_len_b))


@PREFIXES.option("interleaved", accept=ACCEPT, **BOTH_DRAW, **LIMITS)
def interleaved_policy(accept, max_len_a, max_len_b, **draws):
    """In every row the student proposes each token, and the teacher keeps or replaces it."""
    token_rule = InterleavedTokens(*_drawings(**draws), accept)
    return StudentRows(EveryRow(), token_rule, LengthLimit(max_len_a, max_len_b))


@PREFIXES.option("switch", threshold=THRESHOLD, decay=DECAY, **BOTH_DRAW, **LIMITS)
def switch_policy(threshold, decay, max_len_a, max_len_b, **draws):
    """In every row the student's tokens stand, but the teacher's where the two differ much."""
    token_rule = SwitchedTokens(*_drawings(**draws), threshold, decay, jensen_shannon)
    return StudentRows(EveryRow(), token_rule, LengthLimit(max_len_a, max_len_b))


@PREFIXES.option(
    "replay",
    remembers=(FRACTION, *NAMES),
    capacity=CAPACITY,
    first=FIRST_FRACTION,
    reference=REFERENCE,
    tolerance=TOLERANCE,
    topk=replace(TOPK, default=-1),
    **STUDENT_DRAWS,
    **LIMITS,
)
def replay_policy(
    capacity, first, reference, tolerance, topk, temperature, topp, max_len_a, max_len_b
):
    """A batch is generated now, drawn from what was generated before, or the data's."""
    token_rule = StudentTokens(Drawing(topk, temperature, topp))
    fresh = StudentRows(EveryRow(), token_rule, LengthLimit(max_len_a, max_len_b))
    return ReplayedRows(fresh, AdaptiveFraction(first, reference, tolerance), capacity)


def _drawings(topk, temperature, topp, teacher_temperature, teacher_topp):
    """The student's `Drawing` and the teacher's."""
    return Drawing(topk, temperature, topp), Drawing(-1, teacher_temperature, teacher_topp)


def jensen_shannon(student_lprobs, teacher_lprobs):
    """(n,) Jensen-Shannon divergence of (n, vocab) log-probabilities, in nats."""
    return jsd(Support(student_lprobs, teacher_lprobs))
