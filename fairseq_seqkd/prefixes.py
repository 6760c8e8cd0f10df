"""Whose history the decoder is conditioned on: the data's, or what the student writes.

A batch goes in and comes out with the targets of some rows replaced. Which rows, and what is
sampled, follows from (seed, update, sentence id) alone: a resumed run and any number of
processes draw the same.
"""

import math
from dataclasses import replace
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from fairseq_seqkd.objectives.axis import Axis, Parameter
from fairseq_seqkd.objectives.schedules import SCHEDULES
from fairseq_seqkd.rollout import Writer, can_write, eval_mode, roll_out
from fairseq_seqkd.search import candidates, pick, random_stream

PREFIXES = Axis("kd_prefixes")

SCHEDULE = Parameter(
    "kd_schedule",
    "exponential",
    "how the probability that a row keeps its data target falls from update to update",
    axis=SCHEDULES,
)
COIN = Parameter(
    "kd_coin", "row", "what keeps or loses its data target as a whole", choices=("row", "batch")
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
    "the student writes at most a * (source tokens) + b tokens: a",
    "a number from 0 upwards",
    lambda x: 0 <= x < math.inf,
)
MAX_LEN_B = Parameter(
    "kd_max_len_b", 3, "that b", "a whole number from 1 upwards", lambda x: x >= 1
)
LIMITS = {"max_len_a": MAX_LEN_A, "max_len_b": MAX_LEN_B}

# Purposes of a sentence's random numbers; 0 is the teacher's samples.
_COIN, _STUDENT, _TEACHER = 1, 2, 3


class Step(NamedTuple):
    """What decides coins and samples, and nothing else does.

    Attributes:
        seed: of the run
        update: updates done so far
        progress: update / max_update, from 0 to 1; None without a --max-update
    """

    seed: int
    update: int
    progress: Optional[float]


class Prefixed(NamedTuple):
    """A batch whose context is settled.

    Attributes:
        sample: the batch; where rows were written, ``target`` and ``prev_output_tokens``
            are other ones, and ``gold`` has the targets that stood there before
        own: (batch,) True for rows that the student wrote (or took part in)
        log: sums for logging, the same keys at every step
    """

    sample: dict
    own: Tensor
    log: dict


class DataPrefixes:
    """Every row keeps its data target.

    Attributes:
        writes: whether there are rows that the student writes
        needs: what has to be known of a step, names of :class:`Step`'s attributes
    """

    writes = False
    needs = ()

    def __call__(self, sample, student, teacher, dictionary, step):
        return Prefixed(sample, _no_rows(sample), {})


@PREFIXES.value()
def data():
    """Every row keeps its data target."""
    return DataPrefixes()


def _no_rows(sample):
    return torch.zeros_like(sample["target"][:, 0], dtype=torch.bool)


class StudentPrefixes:
    """A row keeps its data target with probability beta(t), else the student writes it.

    Args:
        schedule: beta, a choice of the axis SCHEDULES
        coin: ``row``, or ``batch`` for one coin that decides for all rows
        topk: the student draws among so many symbols; 1 is greedy, -1 draws among all
        max_len_a, max_len_b: the most tokens are a * (source tokens) + b
    Source: Lin et al. 2020 (arXiv 2009.07253), algorithm 1; the coin for a batch:
        Agarwal et al. 2023 (arXiv 2306.13649), algorithm 1.
    """

    writes = True

    def __init__(self, schedule, coin, topk, max_len_a, max_len_b):
        self.schedule = schedule
        self.needs = schedule.needs
        self.coin = coin
        self.topk = topk
        self.max_len_a, self.max_len_b = max_len_a, max_len_b

    def __call__(self, sample, student, teacher, dictionary, step):
        """Settle the context of a batch.

        Args:
            sample: a batch as fairseq collates it
            student: the model without wrappers; its modes and parameters stay as they are
            teacher: :class:`~fairseq_seqkd.teacher.Teacher`
            dictionary: of the targets
            step: :class:`Step`; None in validation, where the student writes nothing
        Returns:
            :class:`Prefixed`
        Raises:
            ValueError: a model that writes no targets, or has no probabilities for one
        """
        beta = 1.0 if step is None else self.schedule(facts=step)
        own = _no_rows(sample)
        log = {"n_own_rows": 0, "n_own_tokens": 0, "beta": beta * len(own), **self.counters()}
        if step is not None:
            check_can_write(*self.models(student, teacher))
            check_starts(sample["net_input"]["prev_output_tokens"], dictionary)
            own = own | (self.coins(sample["id"], step) >= beta).to(own)
        if own.any():
            rows = own.nonzero().flatten()
            tokens = self.write(sample, rows, student, teacher, dictionary, step, log)
            sample = with_targets(sample, rows, tokens, dictionary)
            counts = sample["target"][rows].ne(dictionary.pad())
            log.update(n_own_rows=len(rows), n_own_tokens=int(counts.sum()))
        return Prefixed(sample, own, log)

    def counters(self):
        """What :meth:`choose` counts up, before it does."""
        return {}

    def coins(self, ids, step):
        """(batch,) numbers from 0 to below 1; of a batch, the one of its smallest id."""
        ids = ids.tolist() if self.coin == "row" else [min(ids.tolist())] * len(ids)
        return torch.tensor(
            [random_stream(step.seed, step.update, id_, _COIN).random() for id_ in ids],
            dtype=torch.float64,
        )

    @torch.no_grad()
    def write(self, sample, rows, student, teacher, dictionary, step, log):
        """(rows, length + 1) tokens with an EOS in front, see ``roll_out``."""
        ids = sample["id"][rows].tolist()
        draws = {
            purpose: [random_stream(step.seed, step.update, id_, purpose) for id_ in ids]
            for purpose in self.purposes()
        }

        def choose(rows, *lprobs):
            for whose, next_lprobs in zip(("student", "teacher"), lprobs):
                is_nan = next_lprobs[:, dictionary.eos()].isnan()  # as all of the row then
                if is_nan.any():
                    id_ = ids[int(rows[is_nan][0])]
                    raise ValueError(
                        f"the {whose} has no probabilities (NaN) for a next token, so that the "
                        f"prefix of sentence {id_} has no token at update {step.update}. If "
                        "its training diverged: lower --lr or set --clip-norm."
                    )
            return self.choose(rows.tolist(), draws, log, *lprobs)

        inputs = rows_of(sample["net_input"], rows, len(sample["target"]))
        limits = self.limits(inputs["src_lengths"], student, teacher)
        # Under autocast, torch 1.12 would cast weights here without gradient and keep them for
        # the step that follows.
        single = torch.autocast(rows.device.type, enabled=False)
        with eval_mode(student), single:
            writers = self.writers(student, teacher, inputs, dictionary)
            return roll_out(writers, choose, limits, dictionary)

    def models(self, student, teacher):
        """Who writes."""
        return [student]

    def writers(self, student, teacher, inputs, dictionary):
        """A :class:`~fairseq_seqkd.rollout.Writer` for each of them."""
        return [Writer([student], inputs, dictionary)]

    def purposes(self):
        """Who draws random numbers."""
        return () if self.topk == 1 else (_STUDENT,)

    def choose(self, rows, draws, log, lprobs):
        """The next tokens of these rows, (rows,)."""
        return self.drawn(rows, draws.get(_STUDENT), lprobs, self.topk)

    @staticmethod
    def drawn(rows, streams, lprobs, topk):
        if topk == 1:
            return lprobs.max(-1).indices
        uniform = torch.tensor([streams[row].random() for row in rows], dtype=torch.float64)
        return pick(*candidates(lprobs, topk), uniform)

    def limits(self, source_lengths, student, teacher):
        """(rows,) the most tokens of each row, also for those who have to score it."""
        longest = min(student.max_decoder_positions(), teacher.max_target_positions())
        limits = (self.max_len_a * source_lengths + self.max_len_b).long()
        return limits.clamp(max=int(longest))


@PREFIXES.value(schedule=SCHEDULE, coin=COIN, topk=TOPK, **LIMITS)
def student(schedule, coin, topk, max_len_a, max_len_b):
    """Rows that the student writes, ever more of them."""
    return StudentPrefixes(schedule, coin, topk, max_len_a, max_len_b)


class InterleavedPrefixes(StudentPrefixes):
    """Every row is written by both: the student proposes, the teacher accepts or replaces.

    A proposed token is kept if it is among the teacher's ``accept`` most probable symbols;
    else one that the teacher draws stands there. The paper lets the student propose five
    tokens before the teacher looks, and drops what follows a rejected one. That is the same
    law with fewer calls of the teacher; here the two go side by side.

    Source: Xu et al. 2024, Speculative Knowledge Distillation (arXiv 2410.11325), algorithm 1.
    """

    def __init__(self, accept, topk, max_len_a, max_len_b):
        never = SCHEDULES.choose("constant", {"kd_beta": 0.0})
        super().__init__(never, "row", topk, max_len_a, max_len_b)
        self.accept = accept

    def counters(self):
        return {"n_accepted": 0, "n_proposed": 0}

    def models(self, student, teacher):
        return [student, *teacher.models]

    def writers(self, student, teacher, inputs, dictionary):
        encoded = teacher.encoded(inputs)  # which serves when the rows are scored as well
        own = super().writers(student, teacher, inputs, dictionary)
        return [*own, Writer(teacher.models, inputs, dictionary, encoded)]

    def purposes(self):
        return (*super().purposes(), _TEACHER)

    def choose(self, rows, draws, log, student_lprobs, teacher_lprobs):
        proposed = super().choose(rows, draws, log, student_lprobs)
        # Both draw in every place, so that what the one draws says nothing of the other.
        replacing = self.drawn(rows, draws[_TEACHER], teacher_lprobs, -1)
        of_proposed = teacher_lprobs.gather(-1, proposed.unsqueeze(-1))
        accepted = (teacher_lprobs > of_proposed).sum(-1) < self.accept
        log["n_accepted"] += int(accepted.sum())
        log["n_proposed"] += len(rows)
        return torch.where(accepted, proposed, replacing)


@PREFIXES.value(accept=ACCEPT, topk=replace(TOPK, default=-1), **LIMITS)
def interleaved(accept, topk, max_len_a, max_len_b):
    """Rows that student and teacher write together."""
    return InterleavedPrefixes(accept, topk, max_len_a, max_len_b)


def check_can_write(*models):
    """Refuse models that cannot decode token by token.

    Raises:
        ValueError: names the model
    """
    for model in models:
        if not can_write(model):
            raise ValueError(
                f"--kd-prefixes: {type(model).__name__} writes no targets. Expected a model "
                "that reads a source and decodes token by token, as those of translation "
                "tasks do; with another take --kd-prefixes data."
            )


def check_starts(contexts, dictionary):
    """Refuse targets that begin otherwise than what a model writes here.

    Raises:
        ValueError: names the symbol
    """
    first = contexts[:, 0]
    other = first[first.ne(dictionary.eos()) & first.ne(dictionary.pad())]
    if len(other):
        raise ValueError(
            f"--kd-prefixes: the decoder's context begins with {dictionary[int(other[0])]!r} "
            f"in this task, expected {dictionary.eos_word!r}, which is where a student begins "
            "to write. Take --kd-prefixes data."
        )


def rows_of(net_input, rows, batch):
    """The sources of some rows: everything that has an entry a row, but the old context."""
    return {
        key: value[rows] if torch.is_tensor(value) and len(value) == batch else value
        for key, value in net_input.items()
        if key != "prev_output_tokens"
    }


def with_targets(sample, rows, tokens, dictionary):
    """A batch with other targets in some rows.

    Args:
        sample: as fairseq collates it
        rows: which
        tokens: (rows, length + 1) their tokens after an EOS, padded at the end
    """
    pad, inputs = dictionary.pad(), sample["net_input"]
    old = {"target": sample["target"], "prev_output_tokens": inputs["prev_output_tokens"]}
    written = tokens[:, 1:]
    # The last token is nobody's context: like fairseq, the context is as long as the target.
    contexts = tokens[:, :-1].masked_fill(written.eq(pad), pad)
    target = _merged(old["target"], rows, written, pad)
    context = _merged(old["prev_output_tokens"], rows, contexts, pad)
    some = target.ne(pad).any(0)  # no column for nobody
    return {
        "gold": old,
        **sample,
        "target": target[:, some],
        "net_input": {**inputs, "prev_output_tokens": context[:, some]},
        "ntokens": int(target.ne(pad).sum()),
    }


def _merged(old, rows, new, pad):
    width = max(old.size(1), new.size(1))
    merged = old.new_full((len(old), width), pad)
    merged[:, : old.size(1)] = old
    merged[rows] = pad
    merged[rows, : new.size(1)] = new
    return merged
