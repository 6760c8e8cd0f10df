"""Prefix policies: whose history the decoder is conditioned on in training.

With ``data`` a batch stays as it is. A policy replaces the targets of some rows by ones that
the student (or student and teacher together) generate now: which rows, by which rule for the
next token, and how long. Rows and samples follow from (seed, update, sentence id) alone: a
resumed run and any number of processes draw the same.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Callable, NamedTuple, Optional

import torch
from torch import Tensor

from fairseq_seqkd.decoding.rollout import (
    IncrementalScorer,
    can_generate,
    check_probabilities,
    roll_out,
)
from fairseq_seqkd.decoding.sampling import SentenceStreams
from fairseq_seqkd.decoding.token_rules import (
    Drawing,
    InterleavedTokens,
    StudentTokens,
    SwitchedTokens,
)
from fairseq_seqkd.losses.divergences import kl, mixture
from fairseq_seqkd.losses.schedules import SCHEDULES, needs_progress
from fairseq_seqkd.models.adapters import eval_mode
from fairseq_seqkd.models.batches import replace_targets
from fairseq_seqkd.models.language_tokens import given_symbols
from fairseq_seqkd.registry import Axis, Parameter

# An option is a function that makes a policy.
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

_COIN = 1  # a purpose of a sentence's random numbers; for others see ``token_rules.py``


class TrainingStep(NamedTuple):
    """A training step; coins and samples depend on it and on the sentence id alone.

    A coin for the whole batch uses the smallest id in it.

    Attributes:
        seed: of the run
        update: updates done so far
        progress: update / max_update, from 0 to 1; None without a --max-update
    """

    seed: int
    update: int
    progress: Optional[float]


class PrefixedBatch(NamedTuple):
    """A batch with its prefixes.

    Attributes:
        sample: the batch; where rows were generated, with other ``target`` and
            ``prev_output_tokens``, and the former ones as ``gold``
        student_rows_mask: (batch,) True for rows that were generated
        log: sums for logging, the same keys at every step
    """

    sample: dict
    student_rows_mask: Tensor
    log: dict


@dataclass
class MixedRows:
    """A row keeps its data target with probability beta(t).

    Attributes:
        schedule: beta, a resolved option of the axis SCHEDULES
        coin: ``row``, or ``batch`` for one coin that decides for all rows
    Source: Lin et al. 2020 (arXiv 2009.07253), algorithm 1; the coin for a batch:
        Agarwal et al. 2023 (arXiv 2306.13649), algorithm 1.
    """

    schedule: Callable
    coin: str

    @property
    def needs_progress(self):
        """Whether beta depends on how far training is."""
        return needs_progress(self.schedule)

    def select(self, ids, step):
        """(batch,) True for rows that lose their data target, and beta.

        With one coin for the batch, that of its smallest id decides for all rows.
        """
        beta = self.schedule(step.progress)
        ids = ids.tolist() if self.coin == "row" else [min(ids.tolist())] * len(ids)
        return SentenceStreams(ids, step.seed, step.update).uniform(
            _COIN, range(len(ids))
        ) >= beta, beta


class EveryRow:
    """No row keeps its data target."""

    needs_progress = False

    def select(self, ids, step):
        """As `MixedRows.select`, with a beta of 0."""
        return torch.ones(len(ids), dtype=torch.bool), 0.0


@dataclass
class LengthLimit:
    """At most a * (source tokens) + b tokens."""

    max_len_a: float
    max_len_b: int

    def limits(self, source_lengths, student, teacher, n_given):
        """(rows,) the most tokens that each row may get, within both models' position limits.

        Args:
            n_given: the number of given symbols that each decoder's context begins with
        """
        longest = min(student.max_decoder_positions(), teacher.max_target_positions())
        limits = (self.max_len_a * source_lengths + self.max_len_b).long()
        return limits.clamp(max=int(longest) + 1 - n_given)


@dataclass
class StudentRows:
    """Replaces the targets of some rows by generated ones.

    Attributes:
        row_rule: selects the rows, `MixedRows` or `EveryRow`
        token_rule: gives the next tokens, see ``decoding/token_rules.py``
        limit: `LengthLimit`
    """

    row_rule: Any
    token_rule: Any
    limit: LengthLimit

    @property
    def needs_progress(self):
        """Whether it needs to know the length of training."""
        return self.row_rule.needs_progress

    def __call__(self, sample, student, teacher, task, step):
        """Settle the prefixes of a batch.

        Args:
            sample: a batch as fairseq collates it
            student: the model without wrappers; its modes and parameters stay as they are
            teacher: `Teacher`
            task: the student's
            step: `TrainingStep`; None in validation, where nothing is generated
        Returns:
            `PrefixedBatch`
        Raises:
            ValueError: a model that generates no targets, or has no probabilities for one
        """
        mask, beta = torch.zeros_like(sample["target"][:, 0], dtype=torch.bool), 1.0
        if step is not None:
            check_can_generate(
                student, *(teacher.models if self.token_rule.uses_teacher else ())
            )
            selected, beta = self.row_rule.select(sample["id"], step)
            mask = selected.to(mask)
        log = {"n_student_rows": 0, "n_student_tokens": 0, "beta": beta * len(mask)}
        log.update(dict.fromkeys(self.token_rule.counters, 0))
        if mask.any():
            rows = mask.nonzero().flatten()
            targets = self.generate(sample, rows, student, teacher, task, step, log)
            sample = replace_targets(sample, rows, targets, task.target_dictionary)
            log.update(n_student_rows=len(rows), n_student_tokens=sum(map(len, targets)))
        return PrefixedBatch(sample, mask, log)

    @torch.no_grad()
    def generate(self, sample, rows, student, teacher, task, step, log):
        """A list of (length,) targets for some rows of a batch, see `roll_out`."""
        dictionary, ids = task.target_dictionary, sample["id"][rows].tolist()
        draws = SentenceStreams(ids, step.seed, step.update)

        positions = itertools.count()

        def next_tokens(active, *lprobs):
            for name, of_model in zip(("student", "teacher"), lprobs):
                check_probabilities(of_model, name, active, ids, dictionary, step.update)
            position = next(positions)
            return self.token_rule.next_tokens(active.tolist(), draws, log, position, *lprobs)

        inputs, pad = sample["net_input"], dictionary.pad()
        starts, ends = given_symbols(sample, rows, task)
        lengths, n_given = inputs["src_lengths"][rows], starts.size(1)
        limits = self.limit.limits(lengths, student, teacher, n_given)
        # Under autocast, torch 1.12 would cast weights here without gradient and keep them for
        # the step that follows.
        no_autocast = torch.autocast(rows.device.type, enabled=False)
        with eval_mode(student), no_autocast:
            scorers = [IncrementalScorer([student], inputs, pad)]
            if self.token_rule.uses_teacher:
                scorers.append(teacher.incremental_scorer(inputs))
            for scorer in scorers:
                scorer.keep(rows)
            return roll_out(scorers, next_tokens, limits, starts, ends, pad)


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


def _drawings(topk, temperature, topp, teacher_temperature, teacher_topp):
    """The student's `Drawing` and the teacher's."""
    return Drawing(topk, temperature, topp), Drawing(-1, teacher_temperature, teacher_topp)


def jensen_shannon(student_lprobs, teacher_lprobs):
    """(n,) Jensen-Shannon divergence of (n, vocab) log-probabilities, in nats."""
    middle = mixture(0.5, student_lprobs, teacher_lprobs)
    return 0.5 * (kl(student_lprobs, middle) + kl(teacher_lprobs, middle))


def check_can_generate(*models):
    """Refuse models that cannot decode token by token.

    Raises:
        ValueError: names the model
    """
    for model in models:
        if not can_generate(model):
            raise ValueError(
                f"--kd-prefixes: {type(model).__name__} generates no targets. Expected a model "
                "that reads a source and decodes token by token, as those of translation "
                "tasks do; with another take --kd-prefixes data."
            )
