"""Checks of what only a GPU can show; see gpu.sh.

A check runs fairseq's and this package's commands as a user would, and looks at what they
wrote. Several run side by side. The table is printed. The exit status is 1 if a check failed.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fairseq.data.data_utils import load_indexed_dataset
from tabulate import tabulate

from fairseq_seqkd.cache.sentences import CachedSentences
from fairseq_seqkd.cache.store import DistributionCache
from fairseq_seqkd.models.checkpoints import read_checkpoint
from fairseq_seqkd.models.parameters import fraction_of_zeros

# Methods by what they need: a teacher, a store's data-bin, a trained student.
STUDENT_ROWS = "--kd-schedule constant --kd-beta 0 --kd-sampling-topk -1"
METHODS = {
    "word_kd": "--criterion word_kd",
    "seq_kd": "--criterion seq_kd --kd-alpha 0.5 {pseudo}",
    "seq_inter": "--criterion seq_inter --kd-alpha 0.5 {pseudo}",
    "imit_kd, opt": "--criterion imit_kd {warm}",
    "imit_kd, full": "--criterion imit_kd --imit-kd-loss full {warm}",
    "gkd": "--criterion gkd {warm}",
    "skew KL": f"--criterion distill --kd-alpha 1 --kd-prefixes student {STUDENT_ROWS} "
    "--kd-divergence skew_kl {warm}",
    "interleaved": "--criterion distill --kd-alpha 1 --kd-prefixes interleaved {warm}",
    "switch": "--criterion distill --kd-alpha 1 --kd-prefixes switch {warm}",
    "selective, global": "--criterion distill --kd-weighting selective_global",
    "TIE-KD": "--criterion distill --kd-divergence ranked_kl --kd-passes 3",
    "adaptive skew": "--criterion distill --kd-divergence adaptive_skew_kl {warm}",
    "replay": "--criterion distill --kd-alpha 1 --kd-prefixes replay --kd-replay-fraction 1 "
    "--kd-divergence skew_kl {warm}",
    "PACED": "--criterion distill --sentence-weighting paced {warm}",
    "DSKD": "--criterion dskd --dskd-student-width 64 --dskd-teacher-width 128",
    "cached": "--criterion word_kd --kd-cache {cache}",
}
STOCK = "--criterion label_smoothed_cross_entropy --label-smoothing 0.1"
PRUNING = (
    "--prune-sparsity 0.6 --prune-schedule cubic --prune-every 1 --prune-end-update {half} "
    "--criterion word_kd"
)


class CheckFailed(Exception):
    """What a check expected and did not find."""


def expect(is_so, found):
    """Raise `CheckFailed` unless it is so."""
    if not is_so:
        raise CheckFailed(found)


class Bench:
    """The models and folders of the checks, and how they run commands.

    Args:
        arguments: of this script
    """

    def __init__(self, arguments):
        self.work, self.data = Path(arguments.work), arguments.data
        self.teacher, self.student = arguments.teacher, arguments.student
        self.is_cpu, self.updates = arguments.cpu, arguments.updates
        self.device = ["--cpu"] if arguments.cpu else []
        self.names = {
            "pseudo": f"--pseudo-targets {self.work / 'pseudo'} --accept-unfinished 1",
            "cache": self.work / "cache",
            "warm": f"--finetune-from-model {self.student}",
            "half": self.updates // 2,
        }

    def run(self, name, *command):
        """Run a command, with its output in a log; returns the output.

        Raises:
            CheckFailed: it failed
        """
        log = self.work / "logs" / f"{re.sub('[^A-Za-z0-9.-]+', '-', name)}.log"
        done = subprocess.run(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        log.write_text(f"$ {' '.join(map(str, command))}\n{done.stdout}")
        last = done.stdout.strip().splitlines()[-1:]
        expect(done.returncode == 0, f"exit status {done.returncode}: {last}, see {log}")
        return done.stdout

    def train(self, name, flags, precision="", updates=None, folder=None):
        """Train the student; returns the folder and the loss of every update.

        Raises:
            CheckFailed: it failed, or a loss is not finite
        """
        folder = folder or self.work / "trainings" / re.sub("[^A-Za-z0-9]+", "-", name)
        task = "translation" if flags == STOCK else "translation_seqkd"
        teacher = [] if flags == STOCK else ["--teacher-path", self.teacher]
        output = self.run(
            f"train-{name}-{updates or self.updates}",
            *("fairseq-train", self.data, "--user-dir", user_dir(), *self.device),
            *(
                "--save-dir",
                folder,
                "--task",
                task,
                *teacher,
                "--arch",
                "transformer_iwslt_de_en",
            ),
            *("--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 64".split()),
            *("--decoder-embed-dim 64 --encoder-ffn-embed-dim 128".split()),
            *("--decoder-ffn-embed-dim 128 --share-decoder-input-output-embed".split()),
            *("--optimizer adam --lr 1e-3 --max-tokens 1024 --seed 1 --log-interval 1".split()),
            *("--required-batch-size-multiple 1 --log-format json".split()),
            *("--disable-validation --no-epoch-checkpoints --max-update".split()),
            *(updates or self.updates, *flags.format(**self.names).split(), *precision.split()),
        )
        losses = [float(x) for x in re.findall(r'train_inner.*?"loss": "([^"]*)"', output)]
        expect(losses and all(map(math.isfinite, losses)), f"losses {losses}")
        return folder, losses

    def precision(self, name):
        """The flags of a precision; on a CPU fairseq has no flat masters, and no overflow."""
        if self.is_cpu and name == "--fp16":
            return f"{name} --fp16-no-flatten-grads --fp16-init-scale 4"
        return name


def user_dir():
    """The value of --user-dir."""
    import fairseq_seqkd

    return Path(fairseq_seqkd.__file__).parent


def weights_of(folder):
    """{name: tensor} of a folder's last checkpoint."""
    return read_checkpoint(str(Path(folder) / "checkpoint_last.pt"))["model"]


def trains(bench, name, precision):
    """Losses stay finite, and go down."""
    flags = bench.precision(precision)
    _, losses = bench.train(f"{name} {precision}", METHODS[name], flags)
    expect(len(losses) >= bench.updates // 2, f"{len(losses)} updates that were no overflow")
    return f"loss {losses[0]:.2f} to {losses[-1]:.2f} in {len(losses)} updates"


def prunes(bench, precision):
    """Zeros stay zero in the updates after the last pruning event."""
    folder, _ = bench.train(f"pruned {precision}", PRUNING, bench.precision(precision))
    matrices = {
        name: tensor
        for name, tensor in weights_of(folder).items()
        # The output layer is the decoder's embedding.
        if tensor.dim() > 1 and not re.search("embed_positions|output_projection", name)
    }
    zeros = fraction_of_zeros(matrices)
    expect(abs(zeros - 0.6) < 0.01, f"{100 * zeros:.1f} % zeros, expected 60 %")
    return f"{100 * zeros:.1f} % zeros"


def is_resumed(bench, name, flags, precision):
    """Whether an unbroken training and one with a break end with the same weights."""
    whole, _ = bench.train(f"whole {name} {precision}", flags, precision)
    parts = bench.work / "trainings" / re.sub("[^A-Za-z0-9]+", "-", f"parts {name} {precision}")
    # Schedules depend on --max-update: both halves have the same, and the second one begins
    # with the first one's checkpoint of half the updates.
    saving = f"--save-interval-updates {bench.updates // 2}"
    bench.train(f"first {name} {precision}", f"{flags} {saving}", precision, folder=parts)
    middle = next(parts.glob(f"checkpoint_*_{bench.updates // 2}.pt"))
    middle.replace(parts / "checkpoint_last.pt")
    bench.train(f"second {name} {precision}", flags, precision, folder=parts)
    one, other = weights_of(whole), weights_of(parts)
    return all(torch.equal(one[key], other[key]) for key in one)


def resumes(bench, name, flags, precision):
    """Bit for bit, wherever stock fairseq does so."""
    if is_resumed(bench, name, flags, precision):
        return "equal bit for bit"
    stock = is_resumed(bench, f"stock for {name}", STOCK, precision)
    expect(not stock, "differs from an unbroken training, and stock fairseq does not")
    return "differs, and so does stock fairseq"


def scores(bench):
    """A cache made by the GPU in float16 is that of the CPU in float32, within rounding."""
    common = ("fairseq-seqkd", "cache", bench.data, "--teacher-path", bench.teacher)
    half = [] if bench.is_cpu else ["--teacher-dtype", "float16"]
    bench.run("cache-half", *common, *half, *bench.device, "--kd-cache", bench.work / "half")
    first, second = (
        CachedSentences(DistributionCache(str(bench.work / name))) for name in ("cache", "half")
    )
    pairs = [(first.rows_of(i), second.rows_of(i)) for i in range(len(first))]
    one, other = (np.concatenate(rows) for rows in zip(*pairs))
    same = one["symbols"][:, 0] == other["symbols"][:, 0]
    difference = np.abs(one["lprobs"][:, 0] - other["lprobs"][:, 0])[same].mean()
    expect(same.mean() > 0.99, f"the first symbol is the same at {100 * same.mean():.1f} %")
    expect(difference < 0.02, f"log-probabilities differ by {difference:.4f}")
    return f"first symbols {100 * same.mean():.2f} % equal, nats differ by {difference:.4f}"


def translates(bench, engine, compute_type):
    """Best hypotheses are those of fairseq on the CPU in float32, but for a few."""
    name = f"pseudo-{engine}-{compute_type}"
    flags = ["--engine", engine, "--compute-type", compute_type, "--accept-unfinished", 1]
    bench.run(
        name,
        *("fairseq-seqkd", "generate", bench.data, "--teacher-path", bench.teacher),
        *(*flags, *bench.device, "--pseudo-targets", bench.work / name),
    )
    prefix = "best/train.src-tgt.tgt"
    one, other = (
        load_indexed_dataset(str(bench.work / folder / prefix)) for folder in ("pseudo", name)
    )
    equal = sum(torch.equal(one[i], other[i]) for i in range(len(one))) / len(one)
    expect(equal > 0.9, f"{100 * equal:.1f} % of the translations are the same")
    return f"{100 * equal:.1f} % of {len(one)} translations equal"


def evaluates(bench):
    """BLEU of each device and engine is that of the others, within rounding."""
    devices = ["cpu"] if bench.is_cpu else ["cpu", "cuda"]
    bench.run(
        "evaluate",
        *("fairseq-seqkd", "evaluate", bench.data, "--rounds", 2, "--devices", *devices),
        *("--checkpoints", f"teacher={bench.teacher}", f"student={bench.student}"),
        *("--out", bench.work / "report"),
    )
    report = json.loads((bench.work / "report" / "report.json").read_text())
    seen = {}
    for row in report["rows"]:
        seen.setdefault((row["model"], row["beam"]), []).append(row["bleu"])
    spread = max(max(values) - min(values) for values in seen.values())
    expect(spread < 1, f"BLEU of one model and beam differs by {spread:.2f}")
    return f"{len(report['rows'])} rows, BLEU within {spread:.2f}"


def checks_of(bench):
    """{name: function without arguments} of everything that is checked."""
    half, amp, efficient = "--fp16", "--amp", "--memory-efficient-fp16"
    checks = {f"{name}, {half}": partial(trains, bench, name, half) for name in METHODS}
    for name in ("word_kd", "imit_kd, opt", "gkd", "interleaved"):
        checks[f"{name}, {amp}"] = partial(trains, bench, name, amp)
    checks[f"pruning, {half}"] = partial(prunes, bench, half)
    checks[f"pruning, {efficient}"] = partial(prunes, bench, efficient)
    resumed = {"word_kd": METHODS["word_kd"], "gkd": METHODS["gkd"], "pruning": PRUNING}
    for name, flags in resumed.items():
        checks[f"{name} resumed, {efficient}"] = partial(resumes, bench, name, flags, efficient)
    checks["cache in float16"] = partial(scores, bench)
    half_type = "float32" if bench.is_cpu else "float16"
    for engine in ("fairseq", "ctranslate2"):
        checks[f"store by {engine}, {half_type}"] = partial(
            translates, bench, engine, half_type
        )
    checks["evaluate on both devices"] = partial(evaluates, bench)
    return checks


def result_of(name, check):
    """A row of the table, and whether the check passed."""
    begin = time.perf_counter()
    try:
        found, passed = check(), True
    except CheckFailed as error:
        found, passed = str(error), False
    seconds = time.perf_counter() - begin
    print(f"{'ok' if passed else 'FAILED'}  {name}: {found}", flush=True)
    return [name, "ok" if passed else "**failed**", found, f"{seconds:.0f}"], passed


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", required=True, help="folder to write to")
    parser.add_argument("--data", help="data-bin")
    parser.add_argument("--teacher", help="the teacher's checkpoint")
    parser.add_argument("--student", help="the checkpoint of a trained student")
    parser.add_argument("--updates", type=int, default=20, help="of every training; even")
    parser.add_argument("--jobs", type=int, default=4, help="checks that run at a time")
    parser.add_argument("--cpu", action="store_true", help="dry run without a GPU")
    parser.add_argument("--only", default="", help="checks whose names contain this")
    parser.add_argument("--list", action="store_true", help="print the checks' names alone")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    bench = Bench(arguments)
    checks = {k: v for k, v in checks_of(bench).items() if arguments.only in k}
    if arguments.list:
        print("\n".join(checks))
        return
    for folder in ("logs", "trainings"):
        (bench.work / folder).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(result_of, checks, checks.values()))
    rows = [row for row, _ in results]
    device = "CPU (dry run)" if arguments.cpu else torch.cuda.get_device_name()
    table = tabulate(rows, ["check", "result", "seen", "s"], "github", disable_numparse=True)
    report = f"{device}, torch {torch.__version__}\n\n{table}\n"
    print(f"\n{report}")
    (bench.work / "checks.md").write_text(report)
    sys.exit(0 if all(passed for _, passed in results) else 1)


if __name__ == "__main__":
    main()
