"""Measure exported CTranslate2 folders: lines a second, all at once and one by one, in turns.

    python examples/benchmarks/shipped.py FOLDER [FOLDER ...] < sentences

Every folder translates by its own translate.py, with its vocabulary map if it has one, with one
thread. Ratios compare with the first folder. Lines one by one are what a person's typing is.
"""

import argparse
import os
import runpy
import statistics
import sys
import time

import ctranslate2


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    lines = sys.stdin.buffer.read().splitlines()
    translators = {folder: load(folder) for folder in arguments.folders}
    ways = {"all at once": [lines], "one by one": [[line] for line in lines]}
    seconds = {
        way: measure(translators, blocks, arguments.rounds) for way, blocks in ways.items()
    }
    report(seconds, len(lines), arguments.rounds)


def load(folder):
    """A function from a list of lines to their translations, by the folder's translate.py."""
    program = runpy.run_path(os.path.join(folder, "translate.py"))
    translator = ctranslate2.Translator(folder, inter_threads=1, intra_threads=1)
    settings = program["load_subwords"](folder), program["load_limits"](folder)
    use_vmap = os.path.exists(os.path.join(folder, "vmap.txt"))
    return lambda lines: list(
        program["translations"](translator, *settings, lines, 1, use_vmap)
    )


def measure(translators, blocks, rounds):
    """{folder: seconds of every round}, after a round that warms up."""
    seconds = {folder: [] for folder in translators}
    for number in range(-1, rounds):
        order = list(translators)
        for folder in order[number % len(order) :] + order[: number % len(order)]:
            begin = time.perf_counter()
            for block in blocks:
                translators[folder](block)
            if number >= 0:
                seconds[folder].append(time.perf_counter() - begin)
    return seconds


def report(seconds, lines, rounds):
    """Print the medians as a table."""
    heads = [cell for way in seconds for cell in (f"{way}, lines/s", "ratio")]
    print("| folder | " + " | ".join(heads) + " |\n|---" + "|--:" * len(heads) + "|")
    first = next(iter(next(iter(seconds.values()))))
    for folder in next(iter(seconds.values())):
        cells = []
        for of_folders in seconds.values():
            median = statistics.median(of_folders[folder])
            ratio = statistics.median(of_folders[first]) / median
            cells += [f"{lines / median:,.0f}", f"{ratio:.2f}"]
        print(f"| {os.path.basename(os.path.normpath(folder))} | " + " | ".join(cells) + " |")
    print(f"\n{lines} lines, one thread, medians of {rounds} rounds in turns.")


if __name__ == "__main__":
    main()
