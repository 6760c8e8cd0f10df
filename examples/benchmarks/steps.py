"""What a training step of each method costs, against plain cross-entropy; see steps.sh.

All methods take turns with the same student, batches and optimizer, and each step's parts are
timed: the student writing prefixes, the teacher scoring them, and the rest, which is the
student's own forward and backward pass, the loss, and the update.
"""

import argparse
import statistics
import time
from collections import defaultdict

import torch
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
)
from omegaconf import OmegaConf
from tabulate import tabulate

from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.criterions.gkd import GKDConfig, GKDCriterion
from fairseq_seqkd.criterions.imit_kd import ImitKDConfig, ImitKDCriterion
from fairseq_seqkd.criterions.word_kd import WordKDConfig, WordKDCriterion
from fairseq_seqkd.losses.divergences import DIVERGENCES
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.teacher import Scores, shared_teacher

# Every row and batch is the student's own, as near the end of training.
ALL_OWN = {"kd_schedule": "constant", "kd_beta": 0.0}
METHODS = {
    "word_kd": (WordKDCriterion, WordKDConfig, {}),
    "imit_kd, opt": (ImitKDCriterion, ImitKDConfig, ALL_OWN),
    "imit_kd, full": (ImitKDCriterion, ImitKDConfig, {**ALL_OWN, "imit_kd_loss": "full"}),
    "gkd": (GKDCriterion, GKDConfig, {"kd_beta": 0.0}),
    "interleaved": (DistillCriterion, DistillConfig, {"kd_prefixes": "interleaved"}),
    **{
        f"distill, {name}": (DistillCriterion, DistillConfig, {"kd_divergence": name})
        for name in DIVERGENCES.values
    },
}


class Clock:
    """Adds up the time inside functions that it wraps."""

    def __init__(self):
        self.seconds = defaultdict(float)

    def wrap(self, name, function):
        def timed(*arguments):
            begin = time.perf_counter()
            result = function(*arguments)
            self.seconds[name] += time.perf_counter() - begin
            return result

        return timed


def batches_of(task, max_tokens, number):
    """The first training batches of an epoch, as fairseq-train would shuffle them."""
    iterator = task.get_batch_iterator(
        task.dataset("train"),
        max_tokens=max_tokens,
        max_positions=task.max_positions(),
        required_batch_size_multiple=1,
        seed=1,
    ).next_epoch_itr(shuffle=True)
    return [batch for batch, _ in zip(iterator, range(number))]


def methods(task, arguments):
    """{name: criterion}, plain cross-entropy first."""
    common = {
        "teacher_path": arguments.teacher,
        "teacher_data": arguments.data,
        "label_smoothing": 0.1,
        "sentence_avg": False,
        "seed": 1,
        "max_update": 1000,
    }
    found = {"cross-entropy": LabelSmoothedCrossEntropyCriterion(task, False, 0.1)}
    for name, (criterion, config, settings) in METHODS.items():
        cfg = OmegaConf.structured(config(**{**common, **settings}))
        found[name] = criterion(task, cfg)
    return found


def run(student, criterion, optimizer, batches):
    """Seconds of a pass over the batches."""
    criterion.train()
    begin = time.perf_counter()
    for number, batch in enumerate(batches):
        torch.manual_seed(1 + number)  # the trainer seeds every update
        optimizer.zero_grad()
        loss, size, _ = criterion(student, batch)
        (loss / size).backward()
        optimizer.step()
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data-bin")
    parser.add_argument("--teacher", required=True, help="the teacher's checkpoint")
    parser.add_argument("--student", required=True, help="a trained student's checkpoint")
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", required=True, help="file for the table")
    arguments = parser.parse_args()

    models, task, _ = load_models(arguments.student, arguments.data)
    student = models[0].train()
    task.load_dataset("train")
    batches = batches_of(task, arguments.max_tokens, arguments.batches)
    teacher = shared_teacher(arguments.teacher, task, arguments.data)
    clock = Clock()
    teacher.scores = clock.wrap("scores", teacher.scores)
    Scores.logits = clock.wrap("scores", Scores.logits)
    criteria = methods(task, arguments)
    for criterion in list(criteria.values())[1:]:
        criterion.prefixes = TimedPrefixes(criterion.prefixes, clock)
    # So small a step that the student stays what it is, and all methods have the same.
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-9)

    seconds, parts = defaultdict(list), defaultdict(lambda: defaultdict(list))
    for round_ in range(arguments.rounds + 1):
        for name, criterion in criteria.items():
            clock.seconds.clear()
            taken = run(student, criterion, optimizer, batches) / len(batches)
            if round_ > 0:  # the first warms up
                seconds[name].append(taken)
                for part in ("writes", "scores"):
                    parts[name][part].append(clock.seconds[part] / len(batches))
    table = report(seconds, parts, student, teacher, arguments)
    print(table)
    with open(arguments.out, "w") as file:
        file.write(table + "\n")


class TimedPrefixes:
    """Prefixes whose calls are timed."""

    def __init__(self, prefixes, clock):
        self.writes, self.needs = prefixes.writes, prefixes.needs
        self._call = clock.wrap("writes", prefixes)

    def __call__(self, *arguments):
        return self._call(*arguments)


def report(seconds, parts, student, teacher, arguments):
    """The table: medians, of the ratios as well, which are taken round by round."""
    plain = seconds["cross-entropy"]
    rows = []
    for name, taken in seconds.items():
        ratios = [one / other for one, other in zip(taken, plain)]
        inside = [statistics.median(parts[name][part]) for part in ("writes", "scores")]
        rest = statistics.median(taken) - sum(inside)
        milliseconds = [f"{1000 * part:.0f}" for part in (*inside, rest)]
        total = f"{1000 * statistics.median(taken):.0f}"
        rows.append([name, f"{statistics.median(ratios):.2f}", total, *milliseconds])
    headers = ["a step of", "times cross-entropy", "ms", "writing", "teacher", "the rest"]
    align = ["left", *["right"] * 5]
    table = tabulate(rows, headers, "github", colalign=align, disable_numparse=True)
    size = sum(p.numel() for p in student.parameters())
    return (
        f"{table}\n\nMedians of {arguments.rounds} rounds of {len(seconds)} methods in turns, "
        f"{arguments.batches} batches of at most {arguments.max_tokens} tokens, "
        f"{torch.get_num_threads()} threads; student "
        f"{size:,} parameters, teacher {teacher.parameters:,}."
    )


if __name__ == "__main__":
    main()
