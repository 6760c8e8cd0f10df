"""Tabulate rounds of near-policy distillation from their reports and logs; see near_policy.sh.

python near_policy.py WORK ROUND...
"""

import json
import re
import sys
from pathlib import Path

from tabulate import tabulate

HEADERS = [
    "round",
    "pairs",
    "rejected",
    "mixed in",
    "text of update",
    "trained to update",
    "read",
    "student's score",
    "teacher's score",
    "validation BLEU",
]


def row_of(work, number):
    """The cells of a round.

    Its text is stale by as many updates as lie between the generating student and the one that
    is trained: from 0 to the number of updates at the end of the round.
    """
    report = json.loads((work / f"round-{number}" / "report.json").read_text())
    log = (work / "logs" / f"student-{number}.log").read_text()
    begin, per_epoch = generating_update(report, number), updates_of_epoch(log)
    end = int(re.findall(r"num_updates (\d+)", log)[-1])
    bleu = re.findall(r"valid on .*?\| bleu ([\d.]+)", log)[-1]
    scores = [shown(report[f"{model}_score"]) for model in ("student", "teacher")]
    numbers = [report[name] for name in ("pairs", "rejected", "mixed")]
    reads = f"{(end - begin) / per_epoch:.1f} times"
    return [number, *numbers, begin, end, reads, *scores, bleu]


def shown(score):
    """A score as text; empty if there is none, as of a student that finished nothing."""
    return "" if score is None else f"{score:.3f}"


def generating_update(report, number):
    """The update of this training at which the generating student was saved."""
    return 0 if number == 1 else report["student_updates"]


def updates_of_epoch(log):
    """The updates that one reading of the text takes."""
    return int(re.findall(r"total_num_itrs = (\d+)", log)[-1])


def main():
    work, numbers = Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]
    rows = [row_of(work, number) for number in numbers]
    align = ["right"] * len(HEADERS)
    print(tabulate(rows, HEADERS, "github", colalign=align, disable_numparse=True))
    for row in rows:
        stale = f"stale by {row[5] - row[4]} updates at the end"
        print(f"round {row[0]}: text of the student of update {row[4]}, {stale}")


if __name__ == "__main__":
    main()
