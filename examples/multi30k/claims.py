"""The page of claims.sh: published claims beside what was measured, from the kept results.

    python claims.py keep EVALUATION ROW   # a row's translations, and BLEU's numbers of them
    python claims.py lenpen ROW            # its length penalty, tuned on validation
    python claims.py page RESULTS          # the page, as Markdown

EVALUATION is what ``fairseq-seqkd evaluate`` wrote, ROW a row's folder in RESULTS. The page
needs no reference texts: ``statistics.json.gz`` has the n-gram counts of every sentence.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from kept import DECODINGS, NONE, NotYet, Results, keep, lenpen_of, load_report

from fairseq_seqkd.evaluate.curves import read_curves

NONE_ALL, SOURCES = "none-all.wide", "seq_kd-sources.wide"


class Claim(NamedTuple):
    """A line of the claims table; all text."""

    claim: str
    published: str
    measured: str
    verdict: str


def format_gain(gain):
    return f"{gain['bleu']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"


def reached(is_reached):
    return "reached" if is_reached else "not reached"


def verdict_on(gain, aim, low):
    """The verdict on a gain of at least ``aim`` BLEU whose interval is above ``low``."""
    return reached(gain["bleu"] >= aim and gain["low"] > low)


def gain_claims(results):
    """Kim & Rush's claims on the gain of distillation, with unlabelled text."""
    best, none, teacher = results.best, results.none, results.teacher
    for decoding, published, aim, low in (
        ("greedy", "+4.2", 4.2, 3),
        ("beam 5", "+1.7", 1.7, 1),
    ):
        gain = best.gain(decoding, none)
        yield Claim(
            f"best distilled student over {labels()[NONE]}, {decoding}",
            published,
            f"{format_gain(gain)} ({none.bleu(decoding):.1f} to {best.bleu(decoding):.1f})",
            verdict_on(gain, aim, low),
        )
    gain = best.gain("greedy", none, "beam 5")
    yield Claim(
        "best distilled student, greedy, over the undistilled one's beam 5",
        "+1.3",
        format_gain(gain),
        verdict_on(gain, 0, 0),
    )
    gap = teacher.bleu("beam 5") - none.bleu("greedy")
    closed = (best.bleu("greedy") - none.bleu("greedy")) / gap
    yield Claim(
        "way from the undistilled student, greedy, to the teacher's beam 5",
        "88 % of 4.8",
        f"{100 * closed:.0f} % of {gap:.1f}",
        reached(closed >= 0.85),
    )
    lost = best.bleu("beam 5") - best.bleu("greedy")
    yield Claim(
        "loss of the best student's greedy decoding against its beam 5",
        "0.1",
        f"{lost:.1f} (undistilled: {none.bleu('beam 5') - none.bleu('greedy'):.1f})",
        reached(lost <= 0.7),
    )


def like_for_like_claims(results):
    """The same text for teacher, baseline and student."""
    distilled, none = results.method(SOURCES), results.method(NONE_ALL)
    for decoding, aim, low in (("greedy", 2, 0), ("beam 5", 0.7, -100)):
        gain = distilled.gain(decoding, none)
        seeds = [
            one.score(decoding).score - other.score(decoding).score
            for one, other in zip(distilled.rows, none.rows)
        ]
        agree = all(seed > 0 for seed in seeds)
        yield Claim(
            f"Seq-KD over no distillation, both on the teacher's text, {decoding}",
            "",
            f"{format_gain(gain)}; seeds {', '.join(f'{seed:+.1f}' for seed in seeds)}",
            reached(verdict_on(gain, aim, low) == "reached" and agree),
        )


def speed_claims(results):
    """The student that ships."""
    best = results.best_row
    slow = results.speed("teacher", 5, "fairseq")
    slow8 = results.speed("teacher", 5, "ctranslate2:int8")
    fast, plain = (results.speed(best, 1, e) for e in ("ctranslate2:int8", "fairseq"))
    times = seconds(slow) / seconds(fast)
    yield Claim(
        "best student, greedy, int8: speed relative to the teacher's beam 5 through fairseq",
        "10; Lin et al.: up to 14",
        f"{times:.1f} times ({seconds(slow8) / seconds(fast):.1f} times the teacher's int8)",
        reached(times >= 35),
    )
    yield Claim(
        "best student, greedy: int8 against fairseq",
        "",
        f"{fast['bleu'] - plain['bleu']:+.2f} BLEU",
        reached(fast["bleu"] >= plain["bleu"] - 0.3),
    )
    gain = results.best.gain("beam 5", results.teacher)
    fast = seconds(slow) / seconds(results.speed(best, 5, "ctranslate2:int8"))
    yield Claim(
        "best student's beam 5 over its teacher's, and its speed with int8",
        "",
        f"{format_gain(gain)} at {fast:.1f} times the speed",
        reached(gain["low"] <= 0 <= gain["high"] and fast >= 20),
    )


def seconds(row):
    """The decoding time of a row of a report: the median of each chunk, added up."""
    return sum(float(np.median(rounds)) for rounds in row["seconds"])


def pruning_claims(results):
    """Pruned students against an unpruned one that was trained for as long."""
    unpruned, teacher = results.method("pruned-0"), results.teacher.rows[0]
    for name, method in sorted(results.methods.items()):
        if not name.startswith("pruned-0."):
            continue
        fewer = teacher.nonzero_parameters / method.rows[0].nonzero_parameters
        gains = {decoding: method.gain(decoding, unpruned) for decoding in DECODINGS}
        to_teacher = method.gain("beam 5", results.teacher)
        yield Claim(
            f"{name.replace('-', ' ')}: {fewer:.1f} times fewer non-zero parameters than the "
            "teacher, against an unpruned student",
            "-0.4 at 13 times, -1.0 at 26 times (against the teacher)",
            ", ".join(f"{d} {format_gain(gain)}" for d, gain in gains.items())
            + f"; to the teacher's beam 5 {format_gain(to_teacher)}",
            reached(fewer >= 13 and all(gain["bleu"] >= -0.4 for gain in gains.values())),
        )


def markdown_table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def labels():
    """{method and size: its name on the page}, those of rows.sh."""
    text = (Path(__file__).parent / "rows.sh").read_text(encoding="utf-8")
    found = re.findall(r'^ +([\w-]+)\)[^)]*?label="([^"]+)"', text, re.M)
    sizes = {"wide": "", "narrow": ", width 64", "lstm": ", LSTM"}
    return {
        f"{method}.{size}": label + more
        for method, label in found
        for size, more in sizes.items()
    }


def rows_table(results):
    header = ["row", "seeds", "validation, greedy", "greedy", "brevity", "beam 5", "brevity"]
    header += ["length penalty", "2016 greedy / beam 5", "2018 greedy / beam 5"]
    header += ["gain over no distillation, greedy [95 %]", "beam 5 [95 %]", "minutes"]
    names = {"teacher": "(teacher)", **labels()}
    return markdown_table(
        header,
        [
            row_cells(results, method, names.get(name, name.replace("-", " ")))
            for name, method in results.methods.items()
        ],
    )


def row_cells(results, method, label):
    cells = [f"[{label}](logs/evaluate-{method.rows[0].name}.log)", len(method.rows)]
    cells.append(" / ".join(validation_of(results, row) for row in method.rows))
    for decoding in DECODINGS:
        seeds = " / ".join(f"{row.score(decoding).score:.1f}" for row in method.rows)
        cells += [seeds, f"{method.brevity(decoding):.3f}"]
    cells.append(" / ".join(f"{row.lenpen:g}" for row in method.rows))
    for test in ("test_2016", "test_2018"):
        cells.append(" / ".join(f"{method.bleu(decoding, test):.1f}" for decoding in DECODINGS))
    for decoding in DECODINGS:
        is_none = method.name == NONE
        cells.append("" if is_none else format_gain(method.gain(decoding, results.none)))
    return [*cells, " / ".join(minutes_of(results, row) for row in method.rows)]


def validation_of(results, row):
    """The best greedy BLEU on the validation set, as text."""
    bleu = results.validation(row)
    return "" if bleu is None else f"{bleu:.1f}"


def minutes_of(results, row):
    """The time of a row's training, with a link to its log."""
    log = results.folder / "logs" / f"{row.name}.log"
    if not log.exists():
        return ""
    found = re.findall(r"done training in ([\d.]+) seconds", log.read_text(encoding="utf-8"))
    return f"[{sum(map(float, found)) / 60:.0f}](logs/{log.name})" if found else ""


def tuning_table(results):
    """Dropouts that were tried, by the best greedy BLEU on the validation set."""
    rows = []
    for log in sorted((results.folder / "logs").glob("tuning-*.log")):
        kind, dropout = re.fullmatch(r"tuning-(\w+)-([\d.]+)", log.stem).groups()
        best = max(bleu for _, bleu in read_curves(log)["bleu"])
        rows.append([kind, dropout, f"[{best:.2f}](logs/{log.name})"])
    return markdown_table(["text", "dropout", "validation BLEU"], rows)


def print_page(folder):
    results = Results(folder)
    header = ["claim", "published", "measured [95 %]", "verdict"]
    for title, claims in (
        ("With unlabelled text", gain_claims(results)),
        ("Like for like", like_for_like_claims(results)),
        ("Speed", speed_claims(results)),
        ("Size", pruning_claims(results)),
    ):
        try:
            table = markdown_table(header, claims)
        except NotYet as missing:
            table = f"Not measured yet: {missing} is missing."
        print(f"**{title}**\n\n{table}\n")
    print(f"**All rows**\n\n{rows_table(results)}\n")
    print(f"**Dropout**\n\n{tuning_table(results)}")


def print_lenpen(folder):
    print(lenpen_of(load_report(folder)))


COMMANDS = {"keep": keep, "lenpen": print_lenpen, "page": print_page}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
