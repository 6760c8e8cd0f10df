"""Time a training step of each method, relative to plain cross-entropy; see steps.sh.

All methods take turns with the same student, batches and optimizer. Two parts of a step are
timed separately: the student generating prefixes and the teacher scoring them. The remaining
time is the student's training: its forward and backward pass, the loss, and the update. Of
``dskd`` the teacher's part is in it.
"""

import argparse
import dataclasses
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
from fairseq_seqkd.criterions.dskd import DSKDConfig, DSKDCriterion
from fairseq_seqkd.criterions.gkd import GKDConfig, GKDCriterion
from fairseq_seqkd.criterions.imit_kd import ImitKDConfig, ImitKDCriterion
from fairseq_seqkd.criterions.word_kd import WordKDConfig, WordKDCriterion
from fairseq_seqkd.losses.divergences import DIVERGENCES
from fairseq_seqkd.losses.text_weighting import NLL_WEIGHTINGS, SENTENCE_WEIGHTINGS
from fairseq_seqkd.losses.weighting import WEIGHTINGS
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.models.parameters import parameters_of
from fairseq_seqkd.teacher import LazyLogits, shared_teacher

CROSS_ENTROPY = "cross-entropy"
# The student generates the targets of all rows, as near the end of training.
ALL_STUDENT_ROWS = {"kd_schedule": "constant", "kd_beta": 0.0}
# All rows are the student's: generated now, or (at the end of training) some time ago.
REPLAY = {"kd_prefixes": "replay", "kd_replay_fraction": 1.0}
METHODS = {
    "word_kd": (WordKDCriterion, WordKDConfig, {}),
    "imit_kd, opt": (ImitKDCriterion, ImitKDConfig, ALL_STUDENT_ROWS),
    "imit_kd, full": (
        ImitKDCriterion,
        ImitKDConfig,
        {**ALL_STUDENT_ROWS, "imit_kd_loss": "full"},
    ),
    "gkd": (GKDCriterion, GKDConfig, {"kd_beta": 0.0}),
    "interleaved": (DistillCriterion, DistillConfig, {"kd_prefixes": "interleaved"}),
    "switch": (DistillCriterion, DistillConfig, {"kd_prefixes": "switch"}),
    "replay, fresh": (DistillCriterion, DistillConfig, REPLAY),
    "replay, replayed": (
        DistillCriterion,
        DistillConfig,
        {**REPLAY, "kd_replay_capacity": 100, "max_update": 1},
    ),
    "dskd": (DSKDCriterion, DSKDConfig, {}),
    "tie-kd": (
        DistillCriterion,
        DistillConfig,
        {"kd_divergence": "ranked_kl", "kd_passes": 3},
    ),
    **{
        f"distill, {name}": (DistillCriterion, DistillConfig, {"kd_divergence": name})
        for name in DIVERGENCES.options
    },
    **{
        f"{axis.name}, {name}": (DistillCriterion, DistillConfig, {axis.name: name, **more})
        for axis, more in (
            (WEIGHTINGS, {}),
            (NLL_WEIGHTINGS, {"kd_prefixes": "student", **ALL_STUDENT_ROWS}),
            (SENTENCE_WEIGHTINGS, {}),
        )
        for name in axis.options
        if name != "uniform"
    },
}
PARTS = ("generating", "scoring")


class Clock:
    """Adds up the seconds spent in the functions that it wraps, by part."""

    def __init__(self):
        self.seconds = defaultdict(float)

    def wrap(self, part, function):
        """A function that does the same and adds its time to a part."""

        def timed(*arguments):
            begin = time.perf_counter()
            result = function(*arguments)
            self.seconds[part] += time.perf_counter() - begin
            return result

        return timed


def batches_of(task, max_tokens, number):
    """The first training batches of an epoch, shuffled as fairseq-train does."""
    iterator = task.get_batch_iterator(
        task.dataset("train"),
        max_tokens=max_tokens,
        max_positions=task.max_positions(),
        required_batch_size_multiple=1,
        seed=1,
    ).next_epoch_itr(shuffle=True)
    return [batch for batch, _ in zip(iterator, range(number))]


def criteria_of(task, arguments, clock, student, teacher):
    """{method: criterion}, plain cross-entropy first; the clock times generated prefixes."""
    widths = [model.decoder.embed_tokens.embedding_dim for model in (student, *teacher.models)]
    common = {
        **dict(zip(("dskd_student_width", "dskd_teacher_width"), widths)),
        "teacher_path": arguments.teacher,
        "teacher_data": arguments.data,
        "label_smoothing": 0.1,
        "sentence_avg": False,
        "seed": 1,
        "max_update": 1000,
        "finetune_from_model": arguments.student,
    }
    criteria = {CROSS_ENTROPY: LabelSmoothedCrossEntropyCriterion(task, False, 0.1)}
    for name in arguments.methods:
        criterion_class, config, settings = METHODS[name]
        known = {one.name for one in dataclasses.fields(config)}
        settings = {**{key: common[key] for key in known & set(common)}, **settings}
        criterion = criteria[name] = criterion_class(
            task, OmegaConf.structured(config(**settings))
        )
        method = getattr(criterion, "method", None)
        if method is not None and method.prefix_policy is not None:
            policy = clock.wrap("generating", criterion.method.prefix_policy)
            criterion.method = dataclasses.replace(criterion.method, prefix_policy=policy)
    return criteria


def optimizer_of(student):
    """Adam with such small steps that all methods train practically the same student."""
    return torch.optim.Adam(student.parameters(), lr=1e-9)


def run(student, criterion, optimizer, batches):
    """Train on all batches; returns the seconds it took."""
    criterion.train()
    begin = time.perf_counter()
    for number, batch in enumerate(batches):
        torch.manual_seed(1 + number)  # the trainer seeds every update
        optimizer.zero_grad()
        loss, size, _ = criterion(student, batch)
        (loss / size).backward()
        optimizer.step()
    return time.perf_counter() - begin


def measure(criteria, student, batches, clock, n_rounds):
    """{method: [seconds of a step, in total and by part, one dictionary per round]}."""
    rounds = {name: [] for name in criteria}
    optimizer = optimizer_of(student)
    for round_ in range(n_rounds + 1):
        for name, criterion in criteria.items():
            clock.seconds.clear()
            total = run(student, criterion, optimizer, batches)
            if round_ > 0:  # the first round warms up
                seconds = {"total": total, **{part: clock.seconds[part] for part in PARTS}}
                rounds[name].append({k: v / len(batches) for k, v in seconds.items()})
    return rounds


def table_of(rounds):
    """One row per method: medians. Ratios are taken round by round."""
    rows = []
    for name, of_method in rounds.items():
        pairs = zip(of_method, rounds[CROSS_ENTROPY])
        ratios = [seconds["total"] / stock["total"] for seconds, stock in pairs]
        total, *parts = (
            statistics.median(seconds[part] for seconds in of_method)
            for part in ("total", *PARTS)
        )
        cells = map(in_milliseconds, (total, *parts, total - sum(parts)))
        rows.append([name, f"{statistics.median(ratios):.2f}", *cells])
    headers = ["method", "time relative to cross-entropy", "ms per step"]
    headers += ["generating prefixes (ms)", "teacher scoring (ms)", "student training (ms)"]
    align = ["left", *["right"] * 5]
    return tabulate(rows, headers, "github", colalign=align, disable_numparse=True)


def in_milliseconds(seconds):
    """Seconds as text, with a decimal where the whole number would say too little."""
    value = 1000 * seconds
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"


def size_of(model):
    """The number of a model's parameters, each shared one counted once."""
    return sum(p.numel() for p in parameters_of(dict(model.named_parameters())).values())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data-bin")
    parser.add_argument("--teacher", required=True, help="the teacher's checkpoint")
    parser.add_argument("--student", required=True, help="a trained student's checkpoint")
    parser.add_argument("--max-tokens", type=int, default=2048, help="target tokens in a batch")
    parser.add_argument("--batches", type=int, default=8, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), help="these rows alone"
    )
    parser.add_argument("--out", required=True, help="file for the table")
    arguments = parser.parse_args()

    models, task, _ = load_models(arguments.student, arguments.data)
    student = models[0].train()
    task.load_dataset("train")
    batches = batches_of(task, arguments.max_tokens, arguments.batches)
    teacher = shared_teacher(arguments.teacher, task, arguments.data)
    clock = Clock()
    teacher.logits = clock.wrap("scoring", teacher.logits)
    LazyLogits.at = clock.wrap("scoring", LazyLogits.at)
    criteria = criteria_of(task, arguments, clock, student, teacher)
    table = table_of(measure(criteria, student, batches, clock, arguments.rounds))
    report = (
        f"{table}\n\nMedians of {arguments.rounds} rounds of {len(criteria)} methods in turns, "
        f"{len(batches)} batches of at most {arguments.max_tokens} tokens, "
        f"{torch.get_num_threads()} threads; student {size_of(student):,} parameters, "
        f"teacher {sum(map(size_of, teacher.models)):,}."
    )
    print(report)
    with open(arguments.out, "w") as file:
        file.write(report + "\n")


if __name__ == "__main__":
    main()
