"""What was published beside what was measured, as Markdown, from the results of claims.sh.

    python claims.py results

Every number is one of the reports' or training logs' in that folder, or a difference or
quotient of two, and the last column says of which. Which student is the best of several was
decided on the validation set.
"""

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

from fairseq_seqkd.evaluate.report import Model, Row

NONE, SEQ_KD, TEACHER = "no distillation", "Seq-KD", "teacher"
IMITATION = ("ImitKD", "ImitKD + Full", "ImitKD* + Full")


class Claim(NamedTuple):
    """A line of the table.

    Attributes:
        claim, published, measured: as text
        verdict: what became of it
        source: the files, or the columns of them, that the numbers are from
    """

    claim: str
    published: str
    measured: str
    verdict: str
    source: str


class Comparison:
    """A report of ``evaluate``: models, and rows that are compared with the first model's."""

    def __init__(self, folder, name):
        self.source = f"[{name}]({name}/report.md)"
        content = json.loads((folder / name / "report.json").read_text(encoding="utf-8"))
        self.curves = content["curves"]
        self.models = {model["name"]: Model(**model) for model in content["models"]}
        self.rows = [Row(**row) for row in content["rows"]]

    def row(self, model, beam, engine="fairseq", device=None):
        """The row of a model that decodes so; on the device that the report begins with."""
        device = device or self.rows[0].device
        key = (model, beam, engine, device)
        (row,) = [r for r in self.rows if (r.model, r.beam, r.engine, r.device) == key]
        return row

    def more(self, model, beam):
        return self.row(model, beam).difference


class Grid:
    """What is known of all methods for one student and one seed."""

    def __init__(self, folder, name):
        self.name = name
        # What the rows are compared with: the undistilled student's beam, its greedy
        # decoding, and greedy decoding after Seq-KD.
        self.beam = Comparison(folder, f"beam-{name}")
        self.greedy = Comparison(folder, f"greedy-{name}")
        if SEQ_KD in self.greedy.models:
            self.seq_kd = Comparison(folder, f"seq_kd-{name}")
        self.distilled = [model for model in self.greedy.models if model != NONE]

    def validated(self, method):
        """The best greedy BLEU on the validation set, and the update of that."""
        updates, bleu = max(self.beam.curves[method]["bleu"], key=lambda point: point[1])
        return bleu, updates

    def best(self, methods):
        return max(methods, key=self.validated)


def show(difference):
    return f"{difference['bleu']:+.1f} [{difference['low']:+.1f}, {difference['high']:+.1f}]"


def above(difference, aim=0.0):
    """What became of the claim that something is better by more than ``aim``."""
    verdict = reached(difference["bleu"] > aim)
    sure = difference["low"] > aim or difference["high"] <= aim
    return verdict if sure else f"{verdict}, within chance"


def reached(is_reached):
    return "reached" if is_reached else "not reached"


def quality_claims(grid):
    """Kim & Rush's of one student and seed."""
    best = grid.best(grid.distilled)
    none = {beam: grid.beam.row(NONE, beam).bleu for beam in (1, 5)}
    ours = {beam: grid.beam.row(best, beam).bleu for beam in (1, 5)}
    ceiling = grid.beam.row(TEACHER, 5).bleu
    yield Claim(
        f"the best student, here {best}, above the undistilled one, both greedy",
        "+4.2 (14.7 to 18.9)",
        f"{show(grid.greedy.more(best, 1))} ({none[1]:.1f} to {ours[1]:.1f})",
        above(grid.greedy.more(best, 1), 4.2),
        grid.greedy.source,
    )
    yield Claim(
        "... both with beam 5",
        "+1.7",
        f"{show(grid.beam.more(best, 5))} ({none[5]:.1f} to {ours[5]:.1f})",
        above(grid.beam.more(best, 5), 1.7),
        grid.beam.source,
    )
    yield Claim(
        "... it greedy, the undistilled one with beam 5",
        "+1.3 (17.6 to 18.9)",
        f"{show(grid.beam.more(best, 1))} ({none[5]:.1f} to {ours[1]:.1f})",
        above(grid.beam.more(best, 1)),
        grid.beam.source,
    )
    for beam, published, name in ((1, 88, "greedy decoding"), (5, 68, "beam 5")):
        if ceiling <= none[beam]:
            continue  # there is nothing to close
        share = (ours[1] - none[beam]) / (ceiling - none[beam])
        yield Claim(
            f"... of the gap from the undistilled one's {name} to the teacher's beam 5, its "
            "greedy decoding closes at least two thirds",
            f"{published} %",
            f"{share:.0%} of {ceiling - none[beam]:.1f}".replace("%", " %"),
            reached(share >= 2 / 3),
            grid.beam.source,
        )


def greedy_claims(grid):
    """What Seq-KD does to greedy decoding (Kim & Rush, section 5)."""
    if SEQ_KD not in grid.distilled:
        return
    lost = {
        model: grid.beam.row(model, 5).bleu - grid.beam.row(model, 1).bleu
        for model in (NONE, SEQ_KD)
    }
    yield Claim(
        "greedy decoding costs less after Seq-KD than without distillation",
        "0.1 in place of 2.9",
        f"{lost[SEQ_KD]:.1f} in place of {lost[NONE]:.1f}",
        reached(lost[SEQ_KD] < lost[NONE]),
        grid.beam.source,
    )
    mass = {model: 100 * grid.beam.models[model].mode_mass for model in (NONE, SEQ_KD)}
    yield Claim(
        "a model puts more of its probability on its own beam output after Seq-KD",
        "16.9 % in place of 0.9 %",
        f"{mass[SEQ_KD]:.1f} % in place of {mass[NONE]:.1f} %",
        reached(mass[SEQ_KD] > mass[NONE]),
        grid.beam.source,
    )


def imitation_claims(grid):
    """Lin et al.'s."""
    ours = [model for model in IMITATION if model in grid.distilled]
    if not ours or SEQ_KD not in grid.distilled:
        return
    best = grid.best(ours)
    for beam, comparison in ((1, grid.greedy), (5, grid.beam)):
        yield Claim(
            f"{best} above training from scratch, {'both greedy' if beam == 1 else 'beam 5'}",
            "+1.4 to +4.8",
            show(comparison.more(best, beam)),
            above(comparison.more(best, beam), 1.4),
            comparison.source,
        )
    yield Claim(
        f"{best} above Seq-KD, both greedy",
        "above",
        show(grid.seq_kd.more(best, 1)),
        above(grid.seq_kd.more(best, 1)),
        grid.seq_kd.source,
    )


def speed_claims(speed):
    teacher, _, student, *_ = speed.models
    slow = speed.row(teacher, 5)
    aims = {"fairseq": ("10; Lin et al.: up to 14", 10), "ctranslate2:int8": ("", 30)}
    for engine, (published, aim) in aims.items():
        if any(row.engine == engine for row in speed.rows):
            times = speed.row(student, 1, engine).sentences_per_second
            times /= slow.sentences_per_second
            yield Claim(
                f"{student}, greedily through {engine}: at least {aim} times faster than the "
                "teacher with beam 5 through fairseq",
                published,
                f"{times:.1f}",
                reached(times >= aim),
                speed.source,
            )


def pruning_claims(updates, greedy, beam):
    teacher = beam.models[TEACHER].nonzero
    published = {13: -0.4, 26: -1.0}
    for model in list(greedy.models)[1:]:
        fewer = teacher / greedy.models[model].nonzero
        # What was published for as many times fewer.
        aim = min(loss for times, loss in published.items() if fewer >= times or times == 13)
        for name, size, comparison in (("greedy", 1, greedy), ("beam 5", 5, beam)):
            more = comparison.more(model, size)
            yield Claim(
                f"{model}, {updates} updates, {fewer:.1f} times fewer parameters than the "
                f"teacher: against the unpruned, {name}",
                ", ".join(f"{loss} at {times} times" for times, loss in published.items()),
                show(more),
                above(more, aim),
                comparison.source,
            )


def table(header, rows):
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def claims_table(claims):
    return table(["claim", "published", "measured [95 %]", "", "from"], claims)


def methods_table(grid, folder):
    header = ["student", "validation, greedy", "at update", "min"]
    header += ["test, greedy", f"more than {NONE}", "beam 5", f"more than {NONE}", "mode mass"]
    return table(header, [methods_row(grid, model, folder) for model in grid.greedy.models])


def methods_row(grid, model, folder):
    validated, update = grid.validated(model)
    mode_mass = f"{100 * grid.beam.models[model].mode_mass:.1f} %"
    cells = [model, f"{validated:.2f}", update, minutes(grid.beam.models[model], folder)]
    for beam, comparison in ((1, grid.greedy), (5, grid.beam)):
        first = model == NONE
        cells.append(f"{comparison.row(model, beam).bleu:.2f}")
        cells.append("" if first else show(comparison.more(model, beam)))
    return [*cells, mode_mass]


def minutes(model, folder):
    """What the training took, from the log that has its folder's name."""
    log = folder / "logs" / f"{Path(model.path).parent.name}.log"
    seconds = re.findall(r"done training in ([\d.]+) seconds", log.read_text(encoding="utf-8"))
    return f"[{float(seconds[-1]) / 60:.0f}](logs/{log.name})"


def reports(folder, pattern):
    """Names of the reports like this, in order."""
    return sorted(path.parent.name for path in folder.glob(f"{pattern}/report.json"))


def print_picture(folder, title, path):
    """Without matplotlib there is none."""
    if (folder / path).exists():
        print(f"![{title}]({path})\n")


def print_grid(grid, folder):
    claims = [*quality_claims(grid), *greedy_claims(grid), *imitation_claims(grid)]
    print(f"**{grid.name}** (student, updates, seed)\n")
    print(claims_table(claims) + "\n")
    print(methods_table(grid, folder) + "\n")
    title = "greedy BLEU on the validation set, by updates"
    print_picture(folder, title, f"beam-{grid.name}/training-bleu.svg")


def main(folder):
    folder = Path(folder)
    for name in reports(folder, "beam-*"):
        print_grid(Grid(folder, name.partition("-")[2]), folder)
    print("**Speed and size**\n")
    claims = []
    for name in reports(folder, "speed-*"):
        claims += speed_claims(Comparison(folder, name))
        print_picture(folder, "BLEU against speed", f"{name}/speed.svg")
    for name in reports(folder, "pruned-*-greedy"):
        _, updates, _ = name.split("-")
        both = (Comparison(folder, f"pruned-{updates}-{way}") for way in ("greedy", "beam"))
        claims += pruning_claims(updates, *both)
    print(claims_table(claims))


if __name__ == "__main__":
    main(*sys.argv[1:])
