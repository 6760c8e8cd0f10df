"""Compare word-level distillation with plain cross-entropy in time and memory; see word_kd.sh.

All variants take turns with the same student, batches and optimizer. Memory is measured in a
new process for each variant, since a process does not give back all the memory it has used.
"""

import argparse
import math
import multiprocessing
import os
import resource
import statistics
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor

import torch
from fairseq import utils
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
)
from omegaconf import OmegaConf
from tabulate import tabulate

from fairseq_seqkd.criterions.word_kd import WordKDConfig, WordKDCriterion
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.teacher import shared_teacher

from steps import batches_of, optimizer_of, run, size_of  # isort: skip

STOCK, TEACHER = "stock label_smoothed_cross_entropy", "teacher forward pass alone"
LIVE, LIVE_K = "word_kd, live teacher", "word_kd, live teacher's top {k}"
CACHED = "word_kd, cached top {k}"
VARIANTS = [STOCK, TEACHER, LIVE, LIVE_K, CACHED]


def criterion_of(variant, task, arguments):
    """The criterion of a variant; None for the teacher alone."""
    common = {"label_smoothing": 0.1, "sentence_avg": False, "seed": 1, "max_update": 1000}
    teacher = {"teacher_path": arguments.teacher, "teacher_data": arguments.data}
    sources = {
        LIVE: teacher,
        LIVE_K: {**teacher, "kd_top_k": arguments.top_k},
        CACHED: {"kd_cache": arguments.cache, "train_subset": "train"},
    }
    if variant in sources:
        return WordKDCriterion(
            task, OmegaConf.structured(WordKDConfig(**common, **sources[variant]))
        )
    return LabelSmoothedCrossEntropyCriterion(task, False, 0.1) if variant == STOCK else None


class Variant:
    """One variant of the comparison: trains on, or only scores, every batch."""

    def __init__(self, name, student, task, batches, arguments):
        self.criterion = criterion_of(name, task, arguments)
        self.student, self.batches = student, batches
        self.device, self.amp = torch.device(arguments.device), arguments.amp
        self.teacher = None
        if self.criterion is None:
            self.teacher = shared_teacher(
                arguments.teacher, task, arguments.data, next(student.parameters()).device
            )
        self.optimizer = optimizer_of(student)

    def run(self):
        """Process all batches; returns the seconds it took."""
        begin = time.perf_counter()
        with torch.autocast(self.device.type, enabled=self.amp):
            if self.teacher is None:
                run(self.student, self.criterion, self.optimizer, self.batches)
            else:
                self._score()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    @torch.no_grad()
    def _score(self):
        for batch in self.batches:
            self.teacher.models[0](**batch["net_input"])


def prepare(arguments):
    """The student, its task and the batches."""
    models, task, _ = load_models(arguments.student, arguments.data)
    task.load_dataset("train")
    batches = batches_of(task, arguments.max_tokens, arguments.batches)
    if arguments.device == "cuda":
        batches = [utils.move_to_cuda(batch) for batch in batches]
    return models[0].to(arguments.device).train(), task, batches


def measure(variants, n_rounds):
    """{name: [seconds of a round]}, all variants in turns."""
    seconds = defaultdict(list)
    for round_ in range(n_rounds + 1):
        for name, variant in variants.items():
            passed = variant.run()
            if round_ > 0:  # the first round warms up
                seconds[name].append(passed)
    return seconds


def peak_memory(name, arguments):
    """The peak memory of this process (or on its GPU) in MB, after one round of a variant."""
    Variant(name, *prepare(arguments), arguments).run()
    if arguments.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        # Not ru_maxrss, which a process on Linux inherits from the one that started it.
        with open("/proc/self/status") as status:
            (kilobytes,) = [int(line.split()[1]) for line in status if "VmHWM" in line]
    except FileNotFoundError:  # macOS, where ru_maxrss is in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return kilobytes / 1024


def peak_memory_of_variants(arguments):
    """{name: peak memory in MB}, each variant in a new process."""
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        del os.environ[name]  # recipes set these; fairseq-train by itself does not
    context = multiprocessing.get_context("forkserver" if arguments.fork else "spawn")
    context.set_forkserver_preload(["fairseq_seqkd"])
    memory = {}
    for name in VARIANTS:
        with ProcessPoolExecutor(1, context) as pool:
            memory[name] = pool.submit(peak_memory, name, arguments).result()
    return memory


def cost_table(seconds, memory, n_tokens, n_batches, k):
    """One row per variant: medians. Ratios are taken round by round.

    Args:
        seconds: {variant: [seconds of a round]}
        memory: {variant: MB}
        n_tokens: target tokens in a round
        n_batches: steps in a round
        k: symbols of the top-k variants
    """
    rows = []
    stock_and_teacher = [sum(pair) for pair in zip(seconds[STOCK], seconds[TEACHER])]
    for name, passed in seconds.items():
        median = statistics.median(passed)
        speed = [stock / value for stock, value in zip(seconds[STOCK], passed)]
        overhead = [value / both for value, both in zip(passed, stock_and_teacher)]
        rows.append(
            [
                name.format(k=k),
                f"{1000 * median / n_batches:.0f}",
                f"{n_tokens / median:.0f}",
                f"{statistics.median(speed):.2f}",
                f"{statistics.median(overhead):.2f}" if name in (LIVE, LIVE_K) else "",
                f"{memory[name]:.0f}",
                f"{memory[name] / memory[STOCK]:.2f}",
            ]
        )
    headers = ["variant", "ms per step", "tokens/s", "speed relative to stock"]
    headers += ["time / (stock + teacher)", "peak MB", "memory relative to stock"]
    align = ["left", *["right"] * 6]
    return tabulate(rows, headers, "github", colalign=align, disable_numparse=True)


def agreement_table(variants, student, k):
    """The loss and its gradient with each source of the teacher's distribution."""
    student.eval()  # dropout would differ from pass to pass
    rows, reference = [], None
    for name in (LIVE, LIVE_K, CACHED):
        student.zero_grad()
        kd_loss, n_tokens = 0.0, 0
        for batch in variants[name].batches:
            loss, size, log = variants[name].criterion(student, batch)
            (loss / size).backward()
            kd_loss, n_tokens = kd_loss + float(log["kd_loss"]), n_tokens + size
        gradients = [p.grad.flatten() for p in student.parameters() if p.grad is not None]
        gradient = torch.cat(gradients)
        reference = gradient if reference is None else reference
        distance = float((gradient - reference).norm() / reference.norm())
        bits = kd_loss / n_tokens / math.log(2)
        rows.append([name.format(k=k), f"{bits:.4f}", f"{distance:.4f}"])
    headers = ["variant", "kd_loss (bits per token)"]
    headers += ["relative distance of the gradient from the live teacher's"]
    align = ["left", "right", "right"]
    return tabulate(rows, headers, "github", colalign=align, disable_numparse=True)


def where(arguments):
    """The device and precision, in words."""
    if arguments.device == "cuda":
        name = torch.cuda.get_device_name()
        return f"{name}, {'float16 by autocast' if arguments.amp else 'float32'}"
    return f"{torch.get_num_threads()} threads"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data-bin")
    parser.add_argument("--teacher", required=True, help="the teacher's checkpoint")
    parser.add_argument("--student", required=True, help="a student's checkpoint")
    parser.add_argument("--cache", required=True, help="made by fairseq-seqkd cache")
    parser.add_argument("--top-k", type=int, default=8, help="symbols in the cache")
    parser.add_argument("--max-tokens", type=int, default=2048, help="target tokens in a batch")
    parser.add_argument("--batches", type=int, default=6, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", required=True, help="file for the tables")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--amp", action="store_true", help="half precision by autocast")
    parser.add_argument(
        "--fork",
        action="store_true",
        help="fork the processes whose memory is measured: they start faster, but the memory "
        "of libraries is not counted in full",
    )
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    student, task, batches = prepare(arguments)
    variants = {name: Variant(name, student, task, batches, arguments) for name in VARIANTS}
    seconds = measure(variants, arguments.rounds)
    memory = peak_memory_of_variants(arguments)
    n_tokens = sum(batch["ntokens"] for batch in batches)
    report = (
        f"{student.decoder.output_projection.out_features} symbols:\n\n"
        f"{cost_table(seconds, memory, n_tokens, len(batches), arguments.top_k)}\n\n"
        f"Medians of {arguments.rounds} rounds in turns, {len(batches)} batches of at most "
        f"{arguments.max_tokens} tokens, {where(arguments)}, student "
        f"{size_of(student):,} parameters.\n\n"
        f"{agreement_table(variants, student, arguments.top_k)}"
    )
    print(report)
    with open(arguments.out, "w") as file:
        file.write(report + "\n")


if __name__ == "__main__":
    main()
