"""Which rows of a batch lose their data target, and how long the generated ones may be."""

from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional

import torch

from fairseq_seqkd.decoding.sampling import SentenceStreams
from fairseq_seqkd.losses.schedules import needs_progress

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

    @classmethod
    def now(cls, cfg):
        """The step that training is at.

        fairseq's trainer calls manual_seed(seed + updates) before each step, under any task
        and after a resume, so the update is recovered from torch's seed.

        Args:
            cfg: has ``seed`` and ``max_update``
        """
        update = torch.initial_seed() - cfg.seed
        progress = min(update / cfg.max_update, 1.0) if cfg.max_update > 0 else None
        return cls(cfg.seed, update, progress)


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
            teacher: `Teacher`; None without one
            n_given: the number of given symbols that each decoder's context begins with
        """
        longest = student.max_decoder_positions()
        if teacher is not None:
            longest = min(longest, teacher.max_target_positions())
        limits = (self.max_len_a * source_lengths + self.max_len_b).long()
        return limits.clamp(max=int(longest) + 1 - n_given)
