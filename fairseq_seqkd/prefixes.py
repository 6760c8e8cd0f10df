"""Prefix policies: whose history the decoder is conditioned on in training.

With ``data`` a batch stays as it is. A policy replaces the targets of some rows by ones that
the student (or student and teacher together) generate now: which rows, by which rule for the
next token, and how long. Rows and samples follow from (seed, update, sentence id) alone: a
resumed run and any number of processes draw the same.
"""

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
from fairseq_seqkd.decoding.sampling import SentenceStreams, draw_tokens, top_candidates
from fairseq_seqkd.losses.schedules import SCHEDULES, needs_progress
from fairseq_seqkd.models.adapters import eval_mode
from fairseq_seqkd.models.batches import replace_targets
from fairseq_seqkd.models.language_tokens import given_symbols
from fairseq_seqkd.registry import Axis, Parameter

# An option is a function that makes a policy.
PREFIXES = Axis("kd_prefixes")

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
    "a number from 0 upwards",
    lambda x: 0 <= x < math.inf,
)
MAX_LEN_B = Parameter(
    "kd_max_len_b",
    3,
    "the student generates at most a * (source tokens) + b tokens: b",
    "a whole number from 1 upwards",
    lambda x: x >= 1,
)
LIMITS = {"max_len_a": MAX_LEN_A, "max_len_b": MAX_LEN_B}

# Purposes of a sentence's random numbers; 0 is the teacher's samples.
_COIN, _STUDENT, _TEACHER = 1, 2, 3


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
class StudentTokens:
    """The student's next token, greedy or drawn.

    Attributes:
        topk: draw among so many symbols; 1 is greedy, -1 draws among all
    """

    topk: int
    uses_teacher = False
    counters = ()

    def next_tokens(self, rows, draws, log, student_lprobs):
        """(n,) the next tokens of a list of n rows.

        Args:
            rows: indices among the rows that are generated, in the order of ``draws``
            draws: `SentenceStreams`
            log: updated in place: adds to the keys in ``counters``
            student_lprobs: (n, vocab)
        """
        return _draw(student_lprobs, self.topk, draws, _STUDENT, rows)


@dataclass
class InterleavedTokens:
    """The student proposes a token, and the teacher accepts it or draws another one.

    A proposed token is kept if it is among the teacher's ``accept`` most probable symbols. The
    paper lets the student propose five tokens before the teacher looks, and drops what follows
    a rejected one. That is the same law with fewer calls of the teacher; here the two go side
    by side.

    Attributes:
        accept: see above
        topk: the student draws among so many symbols; 1 is greedy, -1 draws among all
    Source: Xu et al. 2024, Speculative Knowledge Distillation (arXiv 2410.11325), algorithm 1.
    """

    accept: int
    topk: int
    uses_teacher = True
    counters = ("n_accepted", "n_proposed")

    def next_tokens(self, rows, draws, log, student_lprobs, teacher_lprobs):
        """As `StudentTokens.next_tokens`, with the teacher's (n, vocab) as well."""
        proposed = _draw(student_lprobs, self.topk, draws, _STUDENT, rows)
        # Both draw at every position, so that one's draws say nothing of the other's.
        replacements = _draw(teacher_lprobs, -1, draws, _TEACHER, rows)
        of_proposed = teacher_lprobs.gather(-1, proposed.unsqueeze(-1))
        accepted = (teacher_lprobs > of_proposed).sum(-1) < self.accept
        log["n_accepted"] += int(accepted.sum())
        log["n_proposed"] += len(rows)
        return torch.where(accepted, proposed, replacements)


def _draw(lprobs, topk, draws, purpose, rows):
    if topk == 1:
        return lprobs.max(-1).indices
    return draw_tokens(*top_candidates(lprobs, topk), draws.uniform(purpose, rows))


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
        token_rule: gives the next tokens, `StudentTokens` or `InterleavedTokens`
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

        def next_tokens(active, *lprobs):
            for name, of_model in zip(("student", "teacher"), lprobs):
                check_probabilities(of_model, name, active, ids, dictionary, step.update)
            return self.token_rule.next_tokens(active.tolist(), draws, log, *lprobs)

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


@PREFIXES.option("student", schedule=SCHEDULE, coin=COIN, topk=TOPK, **LIMITS)
def student_policy(schedule, coin, topk, max_len_a, max_len_b):
    """A row keeps its data target with probability beta, else the student generates one."""
    limit = LengthLimit(max_len_a, max_len_b)
    return StudentRows(MixedRows(schedule, coin), StudentTokens(topk), limit)


@PREFIXES.option("interleaved", accept=ACCEPT, topk=replace(TOPK, default=-1), **LIMITS)
def interleaved_policy(accept, topk, max_len_a, max_len_b):
    """In every row the student proposes each token, and the teacher keeps or replaces it."""
    limit = LengthLimit(max_len_a, max_len_b)
    return StudentRows(EveryRow(), InterleavedTokens(accept, topk), limit)


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
