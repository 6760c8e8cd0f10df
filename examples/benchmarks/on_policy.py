"""Tabulate the trainings of on_policy.sh: cost of an update, and BLEU on the validation set.

    python on_policy.py FOLDER NAME...      the first is cross-entropy

The time of a method is that of all its commands from start to end, without validations:
generating, scoring, loading, training and saving. Where other programs run, processor time says
more than time.
"""

import re
import sys
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

_TIME = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \| ")
_VALID = re.compile(r"valid on .*?\| bleu ([\d.]+).*?num_updates (\d+)")
COSTS = [
    *("training", "processor time relative to cross-entropy", "without starting programs"),
    *("time relative to cross-entropy", "processor ms per update"),
    *("making text (s)", "training (s)", "of both, starting programs (s)"),
]


class Point(NamedTuple):
    """A validation: after so many updates and seconds."""

    updates: int
    seconds: float
    bleu: float


class Run(NamedTuple):
    """A method's commands.

    Attributes:
        seconds: of all of them, without validations
        making: processor seconds of making rounds
        training: processor seconds of training, without validations
        starting: processor seconds of both in which programs were started
        curve: list of `Point`
    """

    seconds: float
    making: float
    training: float
    starting: float
    curve: list

    @property
    def updates(self):
        return self.curve[-1].updates

    @property
    def cost(self):
        """Processor seconds of an update."""
        return (self.making + self.training) / self.updates

    @property
    def cost_without_starting(self):
        """Processor seconds of an update, but for the starting of programs."""
        return self.cost - self.starting / self.updates


def read_run(folder, name):
    """The `Run` of a method, from the times of its commands and their logs."""
    making, training, starts, past, curve, n_rounds = 0.0, 0.0, [], 0.0, [], 0
    for line in (folder / f"{name}.times").read_text().splitlines():
        path, *times = line.replace(f"/{name}.new/", f"/{name}/").rsplit(" ", 3)
        seconds, *processor = map(float, times)
        if path.endswith(".log") and "/round-" in path:
            making, n_rounds, past = making + sum(processor), n_rounds + 1, past + seconds
            continue
        starting, validating, points = phases(Path(path).read_text(), seconds)
        curve += [one._replace(seconds=one.seconds + past) for one in points]
        past += seconds - validating
        # The processor is busy to the same degree in all phases of a command.
        busy = sum(processor) / seconds
        training += busy * (seconds - validating)
        starts.append(busy * starting)
    starting = sum(starts) + n_rounds * sum(starts) / len(starts)
    return Run(past, making, training, starting, curve)


def phases(log, total):
    """Seconds before a training's first update, and in its validations; and its `Point` list.

    Args:
        log: its text; of several starts the last counts
        total: seconds that the command took
    """
    lines = [line for line in log.split("\n$ ")[-1].splitlines() if _TIME.match(line)]
    end, begin, first, validating, points = time_of(lines[-1]), None, None, 0.0, []
    for line in lines:
        if "begin training epoch" in line:
            first = first or time_of(line)
        elif "begin validation on" in line:
            begin = time_of(line)
        elif "valid on " in line:
            bleu, updates = _VALID.search(line).groups()
            seconds = total - (end - begin).total_seconds() - validating
            points.append(Point(int(updates), seconds, float(bleu)))
            validating += (time_of(line) - begin).total_seconds()
    # The log has whole seconds.
    updating = max(1.0, (end - first).total_seconds() - validating)
    return total - validating - updating, validating, points


def time_of(line):
    """The time at which a line was logged."""
    return datetime.strptime(_TIME.match(line)[1], "%Y-%m-%d %H:%M:%S")


def table_of_costs(runs):
    """One row a method; ``runs`` is {name: `Run`}, the first that of cross-entropy."""
    base, rows = next(iter(runs.values())), []
    for name, run in runs.items():
        per_update = run.seconds / run.updates / (base.seconds / base.updates)
        ratios = run.cost / base.cost, run.cost_without_starting / base.cost_without_starting
        numbers = 1000 * run.cost, run.making, run.training, run.starting
        ratios = [f"{ratio:.2f}" for ratio in (*ratios, per_update)]
        rows.append([name, *ratios, *(f"{number:.0f}" for number in numbers)])
    return table(rows, COSTS)


def table_of_bleu(runs):
    """One row a method: BLEU at the end, and after the time that other methods took."""
    limits = [name for name in runs if name.startswith(("cross", "near"))]
    heads = [f"after the {runs[name].seconds:.0f} s of {name}" for name in limits]
    rows = [
        [name, run.updates, f"{run.seconds:.0f}", f"{run.curve[-1].bleu:.2f}"]
        + [bleu_at(run, runs[limit].seconds) for limit in limits]
        for name, run in runs.items()
    ]
    return table(rows, ["training", "updates", "seconds", "BLEU at the end", *heads])


def bleu_at(run, seconds):
    """The BLEU of the last validation within so many seconds, and its update; or nothing."""
    within = [point for point in run.curve if point.seconds <= seconds + 0.5]
    return f"{within[-1].bleu:.2f} ({within[-1].updates})" if within else ""


def table(rows, heads):
    """Rows and heads as Markdown."""
    align = ["left", *["right"] * (len(heads) - 1)]
    return tabulate(rows, heads, "github", colalign=align, disable_numparse=True)


def main():
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    runs = {name: read_run(folder, name) for name in names}
    print(table_of_costs(runs), table_of_bleu(runs), sep="\n\n")
    print("\nIn brackets: the update of that validation.")


if __name__ == "__main__":
    main()
