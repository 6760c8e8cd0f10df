"""Measure how generate --text reads text; see text.sh.

Two processes do it, one of them with a few lines: the difference of their peak memory is what
the lines take. Every tenth line is a duplicate, and every hundredth stands in a test set.
"""

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import time

FEW = 1000
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 2**10
WORDS = 20_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", help="folder to write to")
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--spm-model", help="cuts the text; default: it is cut at spaces")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)  # in a process
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.work, arguments.measure, arguments.spm_model)
        return
    os.makedirs(arguments.work, exist_ok=True)
    write_data(arguments.work, arguments.lines)
    report(arguments)


def report(arguments):
    """Measure few lines and all of them, and print a table."""
    few, many = (run(arguments, n_lines) for n_lines in (FEW, arguments.lines))
    print("| lines | kept | seconds | lines/s | peak MB | bytes a line |")
    print("|--:|--:|--:|--:|--:|--:|")
    kept, seconds, peak = many
    each = (peak - few[2]) / arguments.lines
    speed = arguments.lines / seconds
    print(
        f"| {arguments.lines} | {kept:.0f} | {seconds:.0f} | {speed:.0f} | {peak / 2**20:.0f} "
        f"| {each:.1f} |"
    )


def run(arguments, n_lines):
    """Lines kept, seconds and peak memory in bytes of a process that reads so many lines."""
    flags = ["--spm-model", arguments.spm_model] if arguments.spm_model else []
    command = [sys.executable, __file__, arguments.work, "--measure", str(n_lines), *flags]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return tuple(map(float, output.split()[-3:]))


def write_data(work, n_lines):
    """Write texts of ``FEW`` and of ``n_lines`` lines, a test set, and dictionaries."""
    rng = random.Random(1)
    words = [f"w{number}" for number in range(WORDS)]
    for lang in ("src", "tgt"):
        with open(os.path.join(work, f"dict.{lang}.txt"), "w") as file:
            file.writelines(f"{word} 1\n" for word in words)
    for size in {FEW, n_lines}:
        path = os.path.join(work, f"text-{size}")
        if not os.path.exists(path):
            with open(path + ".new", "w") as file:
                write_text(file, size, words, rng)
            os.replace(path + ".new", path)
    with open(os.path.join(work, "test"), "w") as file:
        file.write("w1 w2\n")


def write_text(file, n_lines, words, rng):
    """Write made-up lines of 4 to 20 words to a file."""
    line = "w1"
    for number in range(n_lines):
        if number % 10:
            line = " ".join(rng.choices(words, k=rng.randint(4, 20)))
        file.write(f"{line if number % 100 else 'w1 w2'}\n")


def measure(work, n_lines, spm_model):
    """In a process of its own: read the text; print lines kept, seconds and peak memory."""
    from fairseq_seqkd.pseudo.source_text import SourceText, open_text, prepare_text
    from fairseq_seqkd.pseudo.subwords import Subwords

    root = os.path.join(work, f"store-{n_lines}")
    shutil.rmtree(root, ignore_errors=True)
    subwords = Subwords("sentencepiece", spm_model) if spm_model else Subwords()
    files = os.path.join(work, f"text-{n_lines}"), os.path.join(work, "test")
    begin = time.time()
    text = SourceText(files[:1], files[1:], subwords, accept_unknown=1)
    prepare_text(root, text, work, ("src", "tgt"))
    seconds = time.time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES
    kept = len(open_text(root, work, "train", ("src", "tgt")).dataset)
    print(kept, seconds, peak)


if __name__ == "__main__":
    main()
