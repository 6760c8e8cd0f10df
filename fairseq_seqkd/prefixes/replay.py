"""DistiLLM's mixture: rows that the student generates now, those of former updates, or data."""

import math
from dataclasses import dataclass
from typing import Callable, Dict, NamedTuple, Optional

import torch
from fairseq.distributed import utils as distributed_utils
from torch import Tensor

from fairseq_seqkd.decoding.sampling import random_stream
from fairseq_seqkd.models.batches import replace_targets
from fairseq_seqkd.prefixes.buffer import (
    ReplayBuffer,
    collate_again,
    is_of,
    numbered_sentences,
)
from fairseq_seqkd.prefixes.student_rows import (
    PrefixedBatch,
    StudentRows,
    check_can_generate,
)

FRACTION = "adaptive_fraction"
_COIN, _REPLAY = 1, 4  # purposes of a sentence's random numbers; 2 and 3: ``token_rules.py``
_STEP = 0.1


class PolicyMemory(NamedTuple):
    """The memory of a policy, in a training step.

    Attributes:
        values: {name: tensor} to be changed in place, the same on all processes
        gather: joins the (n,) numbers of all processes; all have to call it as often
        validation_nll: the NLL of a gold token in a validation since the step before, in nats;
            None without one
    """

    values: Dict[str, Tensor]
    gather: Callable
    validation_nll: Optional[float]


@dataclass
class AdaptiveFraction:
    """phi, which grows by 0.1 where the validation loss has become worse, up to 1.

    If the loss is at least reference + tolerance, phi grows, and only then the loss becomes the
    reference.

    Attributes:
        first: phi at the beginning
        reference: the loss before training, in bits; 0: the first validation sets it
        tolerance: in nats
    Source: Ko et al. 2024, DistiLLM (arXiv 2402.03898), and the authors' code.
    """

    first: float
    reference: float
    tolerance: float

    def follow(self, memory):
        """phi after the validation that there was, if any.

        Args:
            memory: `PolicyMemory`; has phi and the reference in nats
        """
        of_run = _numbers(self.first, self.reference * math.log(2))
        phi, reference = memory.values.get(FRACTION, of_run).tolist()
        loss = memory.validation_nll
        if loss is not None and reference == 0:
            reference = loss
        elif loss is not None and loss >= reference + self.tolerance:
            phi, reference = min(phi + _STEP, 1.0), loss
        memory.values[FRACTION] = _numbers(phi, reference)
        return phi


@dataclass
class ReplayedRows:
    """One draw r for a batch decides whether all its rows are the student's or the data's.

    With phi the adaptive fraction, and t of N updates done: if r < phi (1 - t / N), or r < phi
    while the buffer is not full, the student generates the rows now, and they join the buffer;
    else, if r < phi, the batch is drawn from the buffer; else it stays as it is.

    Attributes:
        fresh: `StudentRows` that generates every row
        fraction: `AdaptiveFraction`
        capacity: of the `ReplayBuffer`
    Source: Ko et al. 2024, DistiLLM (arXiv 2402.03898), algorithm 1, and the authors' code.
    """

    fresh: StudentRows
    fraction: AdaptiveFraction
    capacity: int

    needs_progress = True
    progress_flags = "--kd-prefixes replay", "--kd-prefixes student --kd-schedule constant"

    @property
    def token_rule(self):
        """Of the rows that are generated."""
        return self.fresh.token_rule

    @property
    def needs_validation(self):
        """Whether all rows stay the data's without a validation."""
        return self.fraction.first == 0

    def __call__(self, sample, student, teacher, task, step, memory):
        """As `StudentRows`, with a `PolicyMemory`; None in validation."""
        batch = sample, student, teacher, task
        if step is None:
            return self._logged(self.fresh(*batch, None), n_validation_tokens=sample["ntokens"])
        check_can_generate(student)
        dataset, phi = numbered_sentences(task), self.fraction.follow(memory)
        buffer = ReplayBuffer(memory.values, self.capacity, step.update)
        settled, generated = self.fresh(*batch, None), (sample["id"][:0], [])
        kind = self.kind_of(sample, phi, len(buffer), step)
        if kind == "fresh":
            settled = self.fresh(*batch, step)
            generated = self._generated(dataset, sample, settled.sample, task)
        elif kind == "replayed":
            entries = self.draw(sample, buffer.entries(), dataset, step)
            settled = replayed(sample, entries, dataset, task, step, settled.log)
        buffer.add(*generated, memory.gather)
        n_replayed = len(settled.sample["target"]) if kind == "replayed" else 0
        return self._logged(settled, 1 - phi, n_replayed=n_replayed)

    def kind_of(self, sample, phi, n_stored, step):
        """``fresh``, ``replayed`` or ``data``, by one draw for the batch.

        Args:
            sample: the batch, whose smallest id the draw is of
            phi, n_stored: the adaptive fraction, and the number of stored rows
            step: `TrainingStep`
        """
        r = _stream(sample, step, _COIN).random()
        if r < phi * (1 - step.progress) or (r < phi and n_stored < self.capacity):
            return "fresh"
        return "replayed" if r < phi else "data"

    def draw(self, sample, entries, dataset, step):
        """Some entries of the buffer, uniformly and without replacement.

        They are as many as the batch has rows, or fewer so that they need no more memory than
        rows that would be generated for it. The number follows from the longest row of the
        whole buffer, so that long rows are drawn as often as others.

        Args:
            sample: the batch in whose place they stand
            entries: of the `ReplayBuffer`
            dataset: of its sentences
            step: `TrainingStep`
        """
        source, target, limit = sample["net_input"], sample["target"], self.fresh.limit
        most = limit.max_len_a * int(source["src_lengths"].max()) + limit.max_len_b
        of_batch = max(most, source["src_tokens"].size(1), target.size(1))
        of_buffer = max(max(dataset.num_tokens(id_), len(one)) for id_, one in entries)
        n_rows = min(len(target), len(entries), int(of_batch * len(target) // of_buffer))
        rng = _stream(sample, step, _REPLAY)
        drawn = rng.choice(len(entries), max(1, n_rows), replace=False)
        return [entries[i] for i in drawn.tolist()]

    def _generated(self, dataset, sample, settled, task):
        """The sentences of a batch and their new targets; none, if it is of the validation.

        Such a batch is repeated by a data-parallel process that has no more of its own.
        """
        if not is_of(dataset, sample):
            if distributed_utils.get_data_parallel_world_size() == 1:
                raise ValueError(
                    "--kd-prefixes replay: the numbers of a batch's sentences are not those of "
                    f"the training set, in the task {type(task).__name__}. Expected --task "
                    "translation or speech_to_text. Else take --kd-prefixes student."
                )
            return sample["id"][:0], []
        pad = task.target_dictionary.pad()
        return settled["id"], [target[target.ne(pad)] for target in settled["target"]]

    def _logged(self, settled, beta=1.0, n_replayed=0, n_validation_tokens=0):
        log = {"beta": beta * len(settled.sample["target"]), "n_replayed": n_replayed}
        log["n_validation_tokens"] = n_validation_tokens
        return settled._replace(log={**settled.log, **log})


def replayed(sample, drawn, dataset, task, step, log):
    """Entries that were drawn from the buffer as a batch, `PrefixedBatch`.

    Args:
        sample: the batch in whose place they stand
        drawn: [(sentence, target)]
        dataset: of its sentences
        task, step: as for `StudentRows`
        log: its sums for logging
    """
    seed = step.seed, step.update, min(sample["id"].tolist())
    batch = collate_again(dataset, [id_ for id_, _ in drawn], sample, seed)
    # The collater sorts; a sentence may be there several times.
    of_sentence = {}
    for id_, target in drawn:
        of_sentence.setdefault(id_, []).append(target)
    targets = [of_sentence[id_].pop(0) for id_ in batch["id"].tolist()]
    rows = torch.arange(len(targets), device=batch["id"].device)
    batch = replace_targets(batch, rows, targets, task.target_dictionary)
    log = {**log, "n_student_rows": len(targets), "n_student_tokens": batch["ntokens"]}
    return PrefixedBatch(batch, torch.ones_like(rows, dtype=torch.bool), log)


def _numbers(*values):
    return torch.tensor(values, dtype=torch.double)


def _stream(sample, step, purpose):
    """Random numbers of a batch: those of its smallest id."""
    return random_stream(step.seed, step.update, min(sample["id"].tolist()), purpose)
