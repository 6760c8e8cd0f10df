"""Times the making of pseudo-targets; see pseudo_targets.sh.

Whole processes are timed, loading included, all sides taking turns. Peak memory is the largest
resident set of one process of a side, its children included.
"""

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Callable, List

from fairseq.data import Dictionary
from sacrebleu.metrics import BLEU
from tabulate import tabulate

import fairseq_seqkd
from fairseq_seqkd.databin import open_split
from fairseq_seqkd.io.files import atomic_file
from fairseq_seqkd.pseudo.store import PseudoTargetStore, read_nbest

REMOVE_BPE = "sentencepiece"


@dataclass
class Side:
    """One way to do the work.

    Attributes:
        name: what it is
        processes: how many
        command: called with a folder to write to and a process's number; a list of words
        best: called with the folder; the text of every best hypothesis, by id
        seconds, megabytes: one a round
    """

    name: str
    processes: int
    command: Callable
    best: Callable = None
    seconds: List[float] = field(default_factory=list)
    megabytes: List[float] = field(default_factory=list)
    folder: str = ""


def run(side, work):
    """One round: all of a side's processes at once, in a fresh folder."""
    side.folder = os.path.join(work, re.sub(r"\W+", "-", f"{side.name} {side.processes}"))
    shutil.rmtree(side.folder, ignore_errors=True)
    os.makedirs(side.folder)
    begin = time.perf_counter()
    running = []
    for number in range(side.processes):
        command = side.command(side.folder, number)
        threads = max(1, len(os.sched_getaffinity(0)) // side.processes)
        environment = {**os.environ}
        if command[0] == "fairseq-generate":
            environment["OMP_NUM_THREADS"] = str(threads)
        with open(os.path.join(side.folder, f"output-{number}.txt"), "w") as output:
            running.append(
                subprocess.Popen(
                    command, stdout=output, stderr=subprocess.STDOUT, env=environment
                )
            )
    peaks = []
    for process in running:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peaks.append(usage.ru_maxrss / 1024)
        if process.returncode:
            sys.exit(f"{side.name} failed, see {side.folder}")
    side.seconds.append(time.perf_counter() - begin)
    side.megabytes.append(max(peaks))
    print(
        f"{side.name}, {side.processes}: {side.seconds[-1]:.0f} s, {max(peaks):.0f} MB",
        flush=True,
    )


def stock(data, teacher, processes, port):
    """fairseq-generate, its text on its standard output.

    --user-dir is there because stock fairseq cannot read checkpoints with torch 2.6 and later.
    """
    user_dir = os.path.dirname(fairseq_seqkd.__file__)

    def command(folder, number):
        words = ["fairseq-generate", data, "--path", teacher, "--gen-subset", "train", "--cpu"]
        words += [
            "--user-dir",
            user_dir,
            "--task",
            "translation",
            "--source-lang",
            "de",
            "--target-lang",
            "en",
        ]
        words += ["--beam", "5", "--nbest", "5", "--required-batch-size-multiple", "1"]
        words += ["--log-format", "none"]
        if processes > 1:
            words += [
                "--distributed-world-size",
                str(processes),
                "--distributed-rank",
                str(number),
            ]
            words += ["--distributed-no-spawn", "--distributed-backend", "gloo"]
            words += ["--distributed-init-method", f"tcp://127.0.0.1:{port}"]
        return words

    return command


def ours(data, teacher, dictionaries, processes, backend, beam=5):
    """fairseq-seqkd generate; it knows how many cores there are."""

    def command(folder, number):
        words = ["fairseq-seqkd", "generate", data, "--teacher-path", teacher, "--cpu"]
        words += ["--teacher-data", dictionaries, "--engine", backend, "--beam", str(beam)]
        words += ["--pseudo-targets", os.path.join(folder, "store")]
        if processes > 1:
            words += ["--num-shards", str(processes), "--shard-id", str(number)]
        return words

    return command


def text_of_stock(folder):
    """{id: text} of the first H- line of every sentence."""
    best = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("H-"):
                    id_, _, text = line.rstrip("\n").split("\t")
                    best.setdefault(int(id_[2:]), join(text))
    return best


def join(pieces):
    return pieces.replace(" ", "").replace("\N{LOWER ONE EIGHTH BLOCK}", " ").strip()


def lists_of(folder):
    """{id: NBest} of the store in a folder."""
    paths = PseudoTargetStore(os.path.join(folder, "store")).chunks.find().values()
    return {sentence.id: sentence for path in paths for sentence in read_nbest(path)}


def text_of_ours(folder, dictionary):
    return {
        id_: join(dictionary.string(sentence.hypotheses[0][0].tolist()))
        if sentence.hypotheses
        else ""
        for id_, sentence in lists_of(folder).items()
    }


def bleu(best, references):
    """Corpus BLEU against gold; stops if a sentence is missing."""
    if sorted(best) != list(range(len(references))):
        sys.exit(f"{len(best)} translations of {len(references)} sentences")
    return BLEU().corpus_score([best[i] for i in range(len(references))], [references]).score


def agreement(one, other):
    """Worker of equal first hypotheses, and overlap of the n-best lists."""
    lists = [
        [[tuple(t.tolist()) for t, _ in lists_[i].hypotheses] for i in sorted(lists_)]
        for lists_ in (one, other)
    ]
    first = sum(a[:1] == b[:1] for a, b in zip(*lists)) / len(lists[0])
    common = sum(len(set(a) & set(b)) for a, b in zip(*lists))
    return first, common / max(sum(map(len, lists[0])), sum(map(len, lists[1])))


def timed(command):
    begin = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - begin


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def speed_table(sides, references):
    """One row a side."""
    stock_sides = [side for side in sides if side.name.startswith("stock")]
    better = min(statistics.median(side.seconds) for side in stock_sides)
    rows = []
    for side in sides:
        seconds = statistics.median(side.seconds)
        threads = len(os.sched_getaffinity(0)) // side.processes
        rows.append(
            {
                "side": side.name,
                "processes x threads": f"{side.processes} x {threads}",
                "seconds": round(seconds),
                "sentences/s": round(len(references) / seconds, 1),
                "times stock's better": round(better / seconds, 2),
                "BLEU against gold": round(bleu(side.best(side.folder), references), 2),
                "peak MB": round(max(side.megabytes)),
            }
        )
    return tabulate(rows, headers="keys", tablefmt="github")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--ten", required=True)
    parser.add_argument("--teacher-path", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    data, teacher, work = arguments.data, arguments.teacher_path, arguments.work

    def generate(corpus, *how, **options):
        return ours(corpus, teacher, data, *how, **options)

    dictionary = Dictionary.load(os.path.join(data, "dict.en.txt"))
    gold = open_split(data, "train")[0].dataset.tgt
    references = [join(dictionary.string(tokens, escape_unk=True)) for tokens in gold]
    sides = []
    for processes in (1, 2):
        command = stock(data, teacher, processes, free_port())
        sides.append(Side("stock fairseq-generate", processes, command, text_of_stock))
        for backend in ("fairseq", "ctranslate2"):
            command = generate(data, processes, backend)
            text = partial(text_of_ours, dictionary=dictionary)
            sides.append(Side(f"ours, {backend}", processes, command, text))
    for _ in range(arguments.rounds):
        for side in sides:
            run(side, work)
    report = [speed_table(sides, references)]

    first, overlap = agreement(lists_of(sides[1].folder), lists_of(sides[2].folder))
    report.append(
        f"The two backends: the same first hypothesis for {first:.2%} of the sentences, the "
        f"5-best lists overlap by {overlap:.2%}."
    )

    ten = Side("ten times", 1, generate(arguments.ten, 1, "ctranslate2"))
    run(ten, work)
    once, tenfold = max(sides[2].megabytes), ten.megabytes[0]
    report.append(
        f"Peak memory with CTranslate2: {once:.0f} MB for {len(references):,} sentences, "
        f"{tenfold:.0f} MB for {10 * len(references):,}: {tenfold / once - 1:+.1%}."
    )

    wide = Side("35-best", 1, generate(data, 1, "ctranslate2", beam=35))
    run(wide, work)
    merge = ["fairseq-seqkd", "merge", data, "--select", "closest", "--remove-bpe", REMOVE_BPE]
    merge += ["--pseudo-targets", os.path.join(wide.folder, "store")]
    for metric in ("bleu", "chrf"):
        seconds = timed([*merge, "--metric", metric])
        report.append(
            f"35-best lists: decoding with CTranslate2 {wide.seconds[0]:.0f} s, choosing the "
            f"closest by {metric} {seconds:.0f} s, {seconds / wide.seconds[0]:.1%}."
        )
    text = "\n\n".join(report)
    print(text)
    with atomic_file(arguments.out) as file:
        file.write((text + "\n").encode())


if __name__ == "__main__":
    main()
