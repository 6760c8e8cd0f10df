"""What word-level distillation costs beside plain cross-entropy, in time and memory; see
word_kd.sh.

All sides take turns with the same student, batches and optimizer. Memory is measured in a
process for each side, since what one has used stays with it.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict

import torch
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
)
from omegaconf import OmegaConf
from tabulate import tabulate

from fairseq_seqkd.criterions.word_kd import WordKDConfig, WordKDCriterion
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.teacher import shared_teacher

from steps import batches_of, run  # isort: skip

STOCK, BARE = "stock label_smoothed_cross_entropy", "a bare teacher forward pass"
LIVE, LIVE_K = "word_kd, teacher", "word_kd, teacher's top {k}"
CACHED = "word_kd, cache of the top {k}"


def criterion_of(side, task, arguments):
    """The criterion of a side of the comparison; None for the teacher alone."""
    common = {"label_smoothing": 0.1, "sentence_avg": False, "seed": 1, "max_update": 1000}
    teacher = {"teacher_path": arguments.teacher, "teacher_data": arguments.data}
    sources = {
        LIVE: teacher,
        LIVE_K: {**teacher, "kd_top_k": arguments.top_k},
        CACHED: {"kd_cache": arguments.cache, "train_subset": "train"},
    }
    if side in sources:
        return WordKDCriterion(
            task, OmegaConf.structured(WordKDConfig(**common, **sources[side]))
        )
    return LabelSmoothedCrossEntropyCriterion(task, False, 0.1) if side == STOCK else None


class Side:
    """One side: runs its share of a step for every batch."""

    def __init__(self, side, student, task, batches, arguments):
        self.criterion = criterion_of(side, task, arguments)
        self.student, self.batches = student, batches
        self.teacher = None
        if self.criterion is None:
            self.teacher = shared_teacher(
                arguments.teacher, task, arguments.data, next(student.parameters()).device
            )
        # So small a step that the student stays what it is, and all sides have the same.
        self.optimizer = torch.optim.Adam(student.parameters(), lr=1e-9)

    def __call__(self):
        """Seconds of a pass over the batches."""
        if self.teacher is None:
            return run(self.student, self.criterion, self.optimizer, self.batches)
        begin = time.perf_counter()
        with torch.no_grad():
            for batch in self.batches:
                self.teacher.models[0](**batch["net_input"])
        return time.perf_counter() - begin


def prepare(arguments):
    """The student, its task and the batches."""
    models, task, _ = load_models(arguments.student, arguments.data)
    task.load_dataset("train")
    return models[0].train(), task, batches_of(task, arguments.max_tokens, arguments.batches)


def peak_memory(arguments):
    """MB that this process had at most, after a pass of one side."""
    Side(arguments.memory_of, *prepare(arguments), arguments)()
    # Not ru_maxrss: a process inherits that of the one that started it.
    with open("/proc/self/status") as status:
        (kilobytes,) = [int(line.split()[1]) for line in status if line.startswith("VmHWM")]
    return kilobytes / 1024


def peak_memory_of(side):
    """The same in a process of its own."""
    command = [sys.executable, *sys.argv, "--memory-of", side]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    output = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        env=environment,
    )
    return json.loads(output.stdout.splitlines()[-1])


def report(seconds, memory, tokens, arguments, student):
    """The table: medians, of the ratios as well, which are taken round by round."""
    rows = []
    with_teacher = [sum(both) for both in zip(seconds[STOCK], seconds[BARE])]
    for side, taken in seconds.items():
        speed = [stock / one for stock, one in zip(seconds[STOCK], taken)]
        against = [one / both for one, both in zip(taken, with_teacher)]
        live = side in (LIVE, LIVE_K)
        rows.append(
            [
                side.format(k=arguments.top_k),
                f"{1000 * statistics.median(taken) / arguments.batches:.0f}",
                f"{tokens / statistics.median(taken):.0f}",
                f"{statistics.median(speed):.2f}",
                f"{statistics.median(against):.2f}" if live else "",
                f"{memory[side]:.0f}",
                f"{memory[side] / memory[STOCK]:.2f}",
            ]
        )
    headers = ["a step of", "ms", "tokens/s", "times stock's speed", "time / (stock + bare)"]
    headers += ["peak MB", "times stock's"]
    align = ["left", *["right"] * 6]
    table = tabulate(rows, headers, "github", colalign=align, disable_numparse=True)
    size = sum(p.numel() for p in student.parameters())
    vocab = student.decoder.output_projection.out_features
    return (
        f"{vocab} symbols:\n\n{table}\n\nMedians of {arguments.rounds} rounds in turns, "
        f"{arguments.batches} batches of at most {arguments.max_tokens} tokens, "
        f"{torch.get_num_threads()} threads, student {size:,} parameters."
    )


def agreement(sides, student, arguments):
    """What the sources of the teacher's distribution say of the same student, as a table."""
    student.eval()  # dropout would be another one each time
    rows, whole = [], None
    for name in (LIVE, LIVE_K, CACHED):
        student.zero_grad()
        kd_loss, tokens = 0.0, 0
        for batch in sides[name].batches:
            loss, size, log = sides[name].criterion(student, batch)
            (loss / size).backward()
            kd_loss, tokens = kd_loss + float(log["kd_loss"]), tokens + size
        gradient = torch.cat([p.grad.flatten() for p in student.parameters()])
        whole = gradient if whole is None else whole
        distance = float((gradient - whole).norm() / whole.norm())
        bits = kd_loss / tokens / math.log(2)
        rows.append([name.format(k=arguments.top_k), f"{bits:.4f}", f"{distance:.4f}"])
    headers = ["", "kd_loss, bits a token", "gradient's distance from the first, of its norm"]
    align = ["left", "right", "right"]
    return tabulate(rows, headers, "github", colalign=align, disable_numparse=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data-bin")
    parser.add_argument("--teacher", required=True, help="the teacher's checkpoint")
    parser.add_argument("--student", required=True, help="a student's checkpoint")
    parser.add_argument("--cache", required=True, help="made by fairseq-seqkd cache")
    parser.add_argument("--top-k", type=int, default=8, help="of the cache")
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", required=True, help="file for the table")
    parser.add_argument("--memory-of", help="measure the peak memory of this side alone")
    arguments = parser.parse_args()
    if arguments.memory_of is not None:
        print(json.dumps(peak_memory(arguments)))
        return

    student, task, batches = prepare(arguments)
    names = [STOCK, BARE, LIVE, LIVE_K, CACHED]
    sides = {name: Side(name, student, task, batches, arguments) for name in names}
    seconds = defaultdict(list)
    for round_ in range(arguments.rounds + 1):
        for name, side in sides.items():
            taken = side()
            if round_ > 0:  # the first warms up
                seconds[name].append(taken)
    memory = {name: peak_memory_of(name) for name in names}
    tokens = sum(batch["ntokens"] for batch in batches)
    table = report(seconds, memory, tokens, arguments, student)
    table += "\n\n" + agreement(sides, student, arguments)
    print(table)
    with open(arguments.out, "w") as file:
        file.write(table + "\n")


if __name__ == "__main__":
    main()
