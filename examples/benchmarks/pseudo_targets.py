"""Time the generation of pseudo-targets; see pseudo_targets.sh.

All systems take turns. Whole processes are timed, loading included. The peak memory of a system
is the largest resident set of one of its processes.
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
from fairseq_seqkd.chunked.workers import available_cores
from fairseq_seqkd.databin import open_split
from fairseq_seqkd.io.files import atomic_file
from fairseq_seqkd.pseudo.store import PseudoTargetStore, read_nbest

REMOVE_BPE = "sentencepiece"
ENGINES = ("fairseq", "ctranslate2 float32", "ctranslate2")
# os.wait4 reports the peak memory in bytes on macOS, elsewhere in kilobytes.
MAXRSS_PER_MB = 2**20 if sys.platform == "darwin" else 2**10


@dataclass
class System:
    """One way to translate the corpus.

    Attributes:
        name: as the table shows it
        processes: the number of processes that run at once
        command: gives a process's command line, called with a folder to write to and the
            process's number
        best: gives {id: text of the best hypothesis}, called with that folder
        seconds, megabytes: the time and the peak memory of every round
        folder: the output of the last round
    """

    name: str
    processes: int
    command: Callable
    best: Callable = None
    seconds: List[float] = field(default_factory=list)
    megabytes: List[float] = field(default_factory=list)
    folder: str = ""

    @property
    def threads(self):
        """Threads of each process."""
        return max(1, available_cores() // self.processes)

    def run(self, work):
        """Run one round in a fresh folder: all processes at once."""
        self.folder = os.path.join(work, re.sub(r"\W+", "-", f"{self.name} {self.processes}"))
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        begin = time.perf_counter()
        running = [self._start(number) for number in range(self.processes)]
        peak = max(map(self._wait, running))
        self.seconds.append(time.perf_counter() - begin)
        self.megabytes.append(peak)
        print(
            f"{self.name}, {self.processes} processes: {self.seconds[-1]:.0f} s, {peak:.0f} MB",
            flush=True,
        )

    def _start(self, number):
        command = self.command(self.folder, number)
        environment = dict(os.environ)
        if command[0] == "fairseq-generate":  # the other one counts the cores itself
            environment["OMP_NUM_THREADS"] = str(self.threads)
        with open(os.path.join(self.folder, f"output-{number}.txt"), "w") as output:
            return subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment
            )

    def _wait(self, process):
        """The peak memory in MB of a process, once it has ended."""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status  # tells Popen that the process has been waited for
        if status != 0:
            sys.exit(f"{self.name} failed, see {self.folder}")
        # On Linux at least the peak of this process, which is below that of all systems.
        return usage.ru_maxrss / MAXRSS_PER_MB


def stock(data, teacher, processes, max_tokens=None):
    """The command of stock fairseq-generate, which prints its translations.

    Stock fairseq cannot read checkpoints with torch 2.6 and later without --user-dir.
    """
    port = free_port()

    def command(folder, number):
        words = ["fairseq-generate", data, "--path", teacher, "--gen-subset", "train", "--cpu"]
        words += ["--user-dir", os.path.dirname(fairseq_seqkd.__file__)]
        words += ["--task", "translation", "--source-lang", "de", "--target-lang", "en"]
        words += ["--beam", "5", "--nbest", "5", "--required-batch-size-multiple", "1"]
        words += ["--log-format", "none"]
        if max_tokens is not None:
            words += ["--max-tokens", str(max_tokens)]
        if processes > 1:
            words += ["--distributed-world-size", str(processes)]
            words += ["--distributed-rank", str(number)]
            words += ["--distributed-no-spawn", "--distributed-backend", "gloo"]
            words += ["--distributed-init-method", f"tcp://127.0.0.1:{port}"]
        return words

    return command


def seqkd(data, teacher, dictionaries, processes, engine, beam=5):
    """The command of fairseq-seqkd generate, which fills a store.

    Args:
        engine: its name, with CTranslate2 also ``ctranslate2 float32``; without a compute type
            the fastest is taken
    """
    name, _, compute_type = engine.partition(" ")

    def command(folder, number):
        words = ["fairseq-seqkd", "generate", data, "--teacher-path", teacher, "--cpu"]
        words += ["--teacher-data", dictionaries, "--engine", name, "--beam", str(beam)]
        words += ["--pseudo-targets", os.path.join(folder, "store")]
        if compute_type:
            words += ["--compute-type", compute_type]
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
                    id_, _, pieces = line.rstrip("\n").split("\t")
                    best.setdefault(int(id_[2:]), join(pieces))
    return best


def join(pieces):
    """The text of sentencepiece's subwords."""
    return pieces.replace(" ", "").replace("\N{LOWER ONE EIGHTH BLOCK}", " ").strip()


def nbest_of(folder):
    """{id: NBest} of the store in a folder."""
    paths = PseudoTargetStore(os.path.join(folder, "store")).chunks.find().values()
    return {sentence.id: sentence for path in paths for sentence in read_nbest(path)}


def text_of_store(folder, dictionary):
    """{id: text} of the best hypotheses of the store in a folder."""
    return {
        id_: join(dictionary.string(sentence.hypotheses[0][0].tolist()))
        if sentence.hypotheses
        else ""
        for id_, sentence in nbest_of(folder).items()
    }


def bleu(best, references):
    """Corpus BLEU of {id: text}; exits if a sentence is missing."""
    if sorted(best) != list(range(len(references))):
        sys.exit(f"{len(best)} translations of {len(references)} sentences")
    return BLEU().corpus_score([best[i] for i in range(len(references))], [references]).score


def agreement(one, other):
    """The fraction of equal best hypotheses, and the overlap of the n-best lists.

    Args:
        one, other: {id: NBest}
    """
    lists = [
        [[tuple(tokens.tolist()) for tokens, _ in nbest[i].hypotheses] for i in sorted(nbest)]
        for nbest in (one, other)
    ]
    first = sum(a[:1] == b[:1] for a, b in zip(*lists)) / len(lists[0])
    common = sum(len(set(a) & set(b)) for a, b in zip(*lists))
    return first, common / max(sum(map(len, lists[0])), sum(map(len, lists[1])))


def compared(one, other):
    """How far the stores of two systems agree, in words."""
    first, overlap = agreement(nbest_of(one.folder), nbest_of(other.folder))
    return (
        f"{one.name} and {other.name} have the same best hypothesis for {first:.2%} of the "
        f"sentences, and their 5-best lists overlap by {overlap:.2%}"
    )


def settings_of(system):
    """What the self-test of a system's store took, in words."""
    engine = PseudoTargetStore(os.path.join(system.folder, "store")).manifest["engine"]
    return f"{system.name} took {engine['compute_type']}, {engine['max_tokens']} tokens a batch"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def all_systems(arguments, dictionary):
    """All systems of the table: stock, and this package with either engine."""
    data, teacher = arguments.data, arguments.teacher_path
    systems = []
    for processes in (1, 2):
        command = stock(data, teacher, processes, arguments.max_tokens)
        systems.append(System("stock fairseq-generate", processes, command, text_of_stock))
        for engine in ENGINES:
            command = seqkd(data, teacher, data, processes, engine)
            text = partial(text_of_store, dictionary=dictionary)
            systems.append(System(f"fairseq-seqkd, {engine}", processes, command, text))
    return systems


def speed_table(systems, references):
    """One row per system: median time, BLEU against gold and peak memory."""
    of_stock = [system for system in systems if system.best is text_of_stock]
    fastest_stock = min(statistics.median(system.seconds) for system in of_stock)
    rows = []
    for system in systems:
        seconds = statistics.median(system.seconds)
        rows.append(
            {
                "system": system.name,
                "processes x threads": f"{system.processes} x {system.threads}",
                "seconds": round(seconds),
                "sentences/s": round(len(references) / seconds, 1),
                "speed relative to fastest stock": round(fastest_stock / seconds, 2),
                "BLEU against gold": round(bleu(system.best(system.folder), references), 2),
                "peak MB": round(max(system.megabytes)),
            }
        )
    return tabulate(rows, headers="keys", tablefmt="github")


def memory_growth(arguments, once, n_sentences):
    """The peak memory on ten times the corpus, in a sentence.

    Args:
        once: the `System` that has translated the corpus itself with CTranslate2
    """
    command = seqkd(arguments.tenfold, arguments.teacher_path, arguments.data, 1, "ctranslate2")
    tenfold = System("ten times the corpus", 1, command)
    tenfold.run(arguments.work)
    before, after = max(once.megabytes), max(tenfold.megabytes)
    return (
        f"Peak memory with CTranslate2: {before:.0f} MB for {n_sentences:,} sentences, "
        f"{after:.0f} MB for {10 * n_sentences:,}: {after / before - 1:+.1%}."
    )


def selection_times(arguments):
    """Time to select from 35-best lists, relative to decoding them; a sentence per metric."""
    data, teacher = arguments.data, arguments.teacher_path
    command = seqkd(data, teacher, data, 1, "ctranslate2", beam=35)
    decoding = System("35-best lists", 1, command)
    decoding.run(arguments.work)
    merge = ["fairseq-seqkd", "merge", data, "--select", "closest", "--remove-bpe", REMOVE_BPE]
    merge += ["--pseudo-targets", os.path.join(decoding.folder, "store")]
    (decoding_time,) = decoding.seconds
    for metric in ("bleu", "chrf"):
        begin = time.perf_counter()
        subprocess.run([*merge, "--metric", metric], check=True)
        seconds = time.perf_counter() - begin
        yield (
            f"35-best lists: decoding with CTranslate2 takes {decoding_time:.0f} s, selecting "
            f"the closest by {metric} {seconds:.0f} s, {seconds / decoding_time:.1%} of it."
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data-bin of the corpus")
    parser.add_argument(
        "--tenfold",
        help="data-bin of ten times the corpus: also measure memory on it, and selecting",
    )
    parser.add_argument("--teacher-path", required=True, help="the teacher's checkpoint")
    parser.add_argument("--work", required=True, help="folder for the systems' output")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--max-tokens",
        type=int,
        help="in a batch of fairseq-generate, which fails if one of its processes has no batch "
        "(default: fairseq's)",
    )
    parser.add_argument("--out", required=True, help="file for the table")
    arguments = parser.parse_args()

    dictionary = Dictionary.load(os.path.join(arguments.data, "dict.en.txt"))
    gold = open_split(arguments.data, "train").dataset.tgt
    references = [join(dictionary.string(tokens, escape_unk=True)) for tokens in gold]
    systems = all_systems(arguments, dictionary)
    for _ in range(arguments.rounds):
        for system in systems:
            system.run(arguments.work)
    with_fairseq, in_float32, fastest = systems[1:4]
    report = [
        speed_table(systems, references),
        f"{settings_of(fastest)}; {compared(with_fairseq, in_float32)}; "
        f"{compared(in_float32, fastest)}.",
    ]
    if arguments.tenfold:
        report.append(memory_growth(arguments, fastest, len(references)))
        report.extend(selection_times(arguments))
    text = "\n\n".join(report)
    print(text)
    with atomic_file(arguments.out) as file:
        file.write((text + "\n").encode())


if __name__ == "__main__":
    main()
