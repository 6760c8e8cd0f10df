"""Rules for the next token of a row that student, or student and teacher, generate now."""

from dataclasses import dataclass
from typing import Callable

import torch

from fairseq_seqkd.decoding.sampling import (
    draw_tokens,
    most_probable,
    nucleus,
    top_candidates,
)

# Purposes of a sentence's random numbers; 0 is the teacher's samples, 1 the coin of a row.
_STUDENT, _TEACHER = 2, 3


@dataclass
class Drawing:
    """How a model's next token is drawn.

    Attributes:
        topk: among so many symbols; 1 is greedy, -1 means all
        temperature: divides the logits before
        topp: among the fewest symbols whose probabilities sum to it or more; 1 means all
    """

    topk: int = -1
    temperature: float = 1.0
    topp: float = 1.0

    def __call__(self, lprobs, uniform):
        """(n,) tokens.

        Args:
            lprobs: (n, vocab)
            uniform: returns (n,) random numbers from 0 to below 1; not called if greedy
        """
        if self.topk == 1:
            return most_probable(lprobs)
        if self.temperature != 1:
            lprobs = (lprobs / self.temperature).log_softmax(-1)
        candidates = top_candidates(lprobs, self.topk)
        if self.topp < 1:
            candidates = nucleus(*candidates, self.topp)
        return draw_tokens(*candidates, uniform())


@dataclass
class StudentTokens:
    """The student's next token, greedy or drawn.

    Attributes:
        drawing: `Drawing`
    """

    drawing: Drawing
    uses_teacher = False
    counters = ()

    def next_tokens(self, rows, draws, log, position, student_lprobs):
        """(n,) the next tokens of a list of n rows.

        Args:
            rows: indices among the rows that are generated, in the order of ``draws``
            draws: `SentenceStreams`
            log: updated in place: adds to the keys in ``counters``
            position: of these tokens in their rows, from 0
            student_lprobs: (n, vocab)
        """
        return self.drawing(student_lprobs, lambda: draws.uniform(_STUDENT, rows))


@dataclass
class _BothTokens:
    """The student proposes a token; where a rule says so, the teacher's stands instead.

    Attributes:
        student, teacher: the `Drawing` of each
    """

    student: Drawing
    teacher: Drawing
    uses_teacher = True
    counters = ("n_accepted", "n_proposed")

    def next_tokens(self, rows, draws, log, position, student_lprobs, teacher_lprobs):
        """As `StudentTokens.next_tokens`, with the teacher's (n, vocab) as well."""
        proposed = self.student(student_lprobs, lambda: draws.uniform(_STUDENT, rows))
        # Both draw at every position, so that one's draws say nothing of the other's.
        replacements = self.teacher(teacher_lprobs, lambda: draws.uniform(_TEACHER, rows))
        accepted = self.accepts(proposed, position, student_lprobs, teacher_lprobs)
        log["n_accepted"] += int(accepted.sum())
        log["n_proposed"] += len(rows)
        return torch.where(accepted, proposed, replacements)


@dataclass
class InterleavedTokens(_BothTokens):
    """The student proposes a token, and the teacher accepts it or draws another one.

    A proposed token is kept if it is among the teacher's ``accept`` most probable symbols. The
    paper lets the student propose five tokens before the teacher looks, and drops what follows
    a rejected one. That is the same law with fewer calls of the teacher; here the two go side
    by side.

    Attributes:
        accept: see above
    Source: Xu et al. 2024, Speculative Knowledge Distillation (arXiv 2410.11325), algorithm 1.
    """

    accept: int = 25

    def accepts(self, proposed, position, student_lprobs, teacher_lprobs):
        """(n,) True where the proposed token is kept."""
        of_proposed = teacher_lprobs.gather(-1, proposed.unsqueeze(-1))
        return (teacher_lprobs > of_proposed).sum(-1) < self.accept


@dataclass
class SwitchedTokens(_BothTokens):
    """The student's token, but the teacher's where the two differ too much.

    They do where their distance exceeds threshold * exp(-decay * position): the allowance
    shrinks along the row, since mistakes add up.

    Attributes:
        threshold, decay: see above
        distance: of (n, vocab) student and teacher log-probabilities, (n,) in nats
    Source: Koo et al. 2024, SWITCH. Its threshold, and how the teacher's tokens are drawn and
        learned from, could not be found: these are this project's.
    """

    threshold: float = 0.0
    decay: float = 0.0
    distance: Callable = None

    def accepts(self, proposed, position, student_lprobs, teacher_lprobs):
        """(n,) True where the student's token stands."""
        allowed = self.threshold * torch.tensor(-self.decay * position).exp()
        return self.distance(student_lprobs, teacher_lprobs) <= allowed.to(student_lprobs)
