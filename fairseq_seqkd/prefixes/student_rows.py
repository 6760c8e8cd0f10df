"""Rows whose targets the student generates in the training step."""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_seqkd.decoding.rollout import (
    IncrementalScorer,
    can_generate,
    check_probabilities,
    is_incremental,
    roll_out,
)
from fairseq_seqkd.decoding.sampling import SentenceStreams
from fairseq_seqkd.models.adapters import eval_mode
from fairseq_seqkd.models.batches import replace_targets
from fairseq_seqkd.models.language_tokens import given_symbols
from fairseq_seqkd.prefixes.row_rules import LengthLimit


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

    needs_validation = False
    # The flags that need to know the length of training, and those that do without.
    progress_flags = "--kd-schedule", "--kd-schedule constant"

    @property
    def needs_progress(self):
        """Whether it needs to know the length of training."""
        return self.row_rule.needs_progress

    def __call__(self, sample, student, teacher, task, step, memory=None):
        """Settle the prefixes of a batch.

        Args:
            sample: a batch as fairseq collates it
            student: the model without wrappers; its modes and parameters stay as they are
            teacher: `Teacher`
            task: the student's
            step: `TrainingStep`; None in validation, where nothing is generated
            memory: for policies that remember something from batch to batch
        Returns:
            `PrefixedBatch`
        Raises:
            ValueError: a model that generates no targets, or has no probabilities for one
        """
        mask, beta = torch.zeros_like(sample["target"][:, 0], dtype=torch.bool), 1.0
        if step is not None:
            teachers = teacher.models if self.token_rule.uses_teacher else ()
            check_can_generate(student, teachers)
            selected, beta = self.row_rule.select(sample["id"], step)
            mask = selected.to(mask)
        log = {"n_student_rows": 0, "n_student_tokens": 0, "beta": beta * len(mask)}
        log["n_cut_rows"] = 0
        log.update(dict.fromkeys(self.token_rule.counters, 0))
        if mask.any():
            rows = mask.nonzero().flatten()
            targets = self.generate(sample, rows, student, teacher, task, step, log)
            sample = replace_targets(sample, rows, targets, task.target_dictionary)
            log.update(n_student_rows=len(rows), n_student_tokens=sum(map(len, targets)))
        return PrefixedBatch(sample, mask, log)

    @torch.no_grad()
    def generate(self, sample, rows, student, teacher, task, step, log):
        """A list of (length,) targets for some rows of a batch, see `roll_out`.

        Rows without an end, which their limit cut, are counted in ``log``.
        """
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
                scorers.append(teacher.incremental_scorer(teacher.inputs_of(sample)))
            for scorer in scorers:
                scorer.keep(rows)
            targets = roll_out(scorers, next_tokens, limits, starts, ends, pad)
        lasts = torch.stack([target[-1] for target in targets])
        log["n_cut_rows"] += int((lasts != ends).sum())
        return targets


def check_can_generate(student, teachers=()):
    """Refuse models that cannot decode token by token; the student reads a source as well.

    Raises:
        ValueError: names the model
    """
    for model in (student, *teachers):
        if not (can_generate(model) if model is student else is_incremental(model)):
            raise ValueError(
                f"--kd-prefixes: {type(model).__name__} generates no targets. Expected a model "
                "that reads a source and decodes token by token, as those of translation "
                "tasks do; with another take --kd-prefixes data."
            )
