"""Prints published results beside those measured by claims.sh, as Markdown.

    python claims.py results

Every number comes from a report or a training log in that folder, or is a difference or
quotient of two such numbers; the last column links to it. The best of several students is the
one that was best on the validation set.
"""

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

from fairseq_seqkd.evaluate.curves import read_curves
from fairseq_seqkd.evaluate.report import ModelSummary, Row

# The names that claims.sh gives to these models.
NONE, SEQ_KD, TEACHER = "no distillation", "Seq-KD", "teacher"
IMITATION = ("ImitKD", "ImitKD + Full", "ImitKD* + Full")


class Claim(NamedTuple):
    """A line of the claims table.

    Attributes:
        claim, published, measured: text
        verdict: whether the claim was reached here
        source: link to the report
    """

    claim: str
    published: str
    measured: str
    verdict: str
    source: str


class Comparison:
    """A report of ``fairseq-seqkd evaluate``: models, and rows compared with a baseline."""

    def __init__(self, folder, name):
        self.source = f"[{name}]({name}/report.md)"
        content = json.loads((folder / name / "report.json").read_text(encoding="utf-8"))
        self.models = {model["name"]: ModelSummary(**model) for model in content["models"]}
        self.rows = [Row(**row) for row in content["rows"]]

    def row(self, model, beam, engine="fairseq", device=None):
        """The row of a model and way of decoding, on the report's first device by default."""
        device = device or self.rows[0].device
        key = (model, beam, engine, device)
        (row,) = [r for r in self.rows if (r.model, r.beam, r.engine, r.device) == key]
        return row

    def gain(self, model, beam):
        """{"bleu", "low", "high"} over the baseline."""
        return self.row(model, beam).gain


class Results:
    """The results of all methods for one student, number of updates and seed.

    Attributes:
        folder: of all results
        name: such as ``transformer-96-1000-1``
        over_beam, over_greedy: `Comparison` with the undistilled student's beam 5; with its
            greedy decoding
        over_seq_kd: `Comparison` with greedy decoding after Seq-KD, if that was trained
        distilled: the names of the distilled students
    """

    def __init__(self, folder, name):
        self.folder = folder
        self.name = name
        self.over_beam = Comparison(folder, f"beam-{name}")
        self.over_greedy = Comparison(folder, f"greedy-{name}")
        if SEQ_KD in self.over_greedy.models:
            self.over_seq_kd = Comparison(folder, f"seq_kd-{name}")
        self.distilled = [model for model in self.over_greedy.models if model != NONE]

    def best_validation(self, method):
        """The best greedy BLEU on the validation set, and its update in the last training."""
        log = training_log(self.over_beam.models[method], self.folder)
        curve = read_curves(log)["bleu"]
        update, bleu = max(curve, key=lambda point: point[1])
        return bleu, update

    def best_of(self, methods):
        """The method that is best on the validation set."""
        return max(methods, key=self.best_validation)


def format_gain(gain):
    return f"{gain['bleu']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"


def verdict_on(gain, target=0.0):
    """The verdict on the claim that a gain is above ``target``.

    Args:
        gain: {"bleu", "low", "high"}
        target: BLEU
    """
    verdict = reached(gain["bleu"] > target)
    is_certain = gain["low"] > target or gain["high"] <= target
    return verdict if is_certain else f"{verdict}, interval includes target"


def reached(is_reached):
    return "reached" if is_reached else "not reached"


def quality_claims(results):
    """Kim & Rush's claims on BLEU, for one student and seed."""
    best = results.best_of(results.distilled)
    greedy, beam = results.over_greedy, results.over_beam
    none = {size: beam.row(NONE, size).bleu for size in (1, 5)}
    ours = {size: beam.row(best, size).bleu for size in (1, 5)}
    yield Claim(
        f"the best student ({best}) gains over {NONE}, both greedy",
        "+4.2 (14.7 to 18.9)",
        f"{format_gain(greedy.gain(best, 1))} ({none[1]:.1f} to {ours[1]:.1f})",
        verdict_on(greedy.gain(best, 1), 4.2),
        greedy.source,
    )
    yield Claim(
        f"the best student gains over {NONE}, both with beam 5",
        "+1.7",
        f"{format_gain(beam.gain(best, 5))} ({none[5]:.1f} to {ours[5]:.1f})",
        verdict_on(beam.gain(best, 5), 1.7),
        beam.source,
    )
    yield Claim(
        f"the best student, greedy, is better than {NONE} with beam 5",
        "+1.3 (17.6 to 18.9)",
        f"{format_gain(beam.gain(best, 1))} ({none[5]:.1f} to {ours[1]:.1f})",
        verdict_on(beam.gain(best, 1)),
        beam.source,
    )
    yield from gap_claims(results, ours[1], none)


def gap_claims(results, greedy_bleu, none):
    """Kim & Rush's claims on the gap between the undistilled student and the teacher.

    Args:
        results: `Results`
        greedy_bleu: BLEU of the best student, greedy
        none: {beam size: BLEU of the undistilled student}
    """
    ceiling = results.over_beam.row(TEACHER, 5).bleu
    for size, published, decoding in ((1, 88, "greedy"), (5, 68, "with beam 5")):
        gap = ceiling - none[size]
        if gap <= 0:
            continue  # the teacher is not better
        closed = (greedy_bleu - none[size]) / gap
        yield Claim(
            f"the best student, greedy, closes at least two thirds of the gap between {NONE}, "
            f"{decoding}, and the teacher with beam 5",
            f"{published} %",
            f"{closed:.0%} of {gap:.1f}".replace("%", " %"),
            reached(closed >= 2 / 3),
            results.over_beam.source,
        )


def greedy_claims(results):
    """Kim & Rush's claims on greedy decoding after Seq-KD (their section 5)."""
    if SEQ_KD not in results.distilled:
        return
    beam = results.over_beam
    lost = {
        model: beam.row(model, 5).bleu - beam.row(model, 1).bleu for model in (NONE, SEQ_KD)
    }
    yield Claim(
        "greedy decoding loses less against beam 5 after Seq-KD than without distillation",
        "0.1 instead of 2.9",
        f"{lost[SEQ_KD]:.1f} instead of {lost[NONE]:.1f}",
        reached(lost[SEQ_KD] < lost[NONE]),
        beam.source,
    )
    mass = {model: 100 * beam.models[model].mode_mass for model in (NONE, SEQ_KD)}
    yield Claim(
        "a model gives its own beam output more probability after Seq-KD (mode mass)",
        "16.9 % instead of 0.9 %",
        f"{mass[SEQ_KD]:.1f} % instead of {mass[NONE]:.1f} %",
        reached(mass[SEQ_KD] > mass[NONE]),
        beam.source,
    )


def imitation_claims(results):
    """The claims of Lin et al. on ImitKD."""
    imitated = [model for model in IMITATION if model in results.distilled]
    if not imitated or SEQ_KD not in results.distilled:
        return
    best = results.best_of(imitated)
    for size, decoding, comparison in (
        (1, "both greedy", results.over_greedy),
        (5, "both with beam 5", results.over_beam),
    ):
        yield Claim(
            f"{best} gains over {NONE}, {decoding}",
            "+1.4 to +4.8",
            format_gain(comparison.gain(best, size)),
            verdict_on(comparison.gain(best, size), 1.4),
            comparison.source,
        )
    yield Claim(
        f"{best} is better than Seq-KD, both greedy",
        "better",
        format_gain(results.over_seq_kd.gain(best, 1)),
        verdict_on(results.over_seq_kd.gain(best, 1)),
        results.over_seq_kd.source,
    )


def speed_claims(speed):
    """The claims on the speed of the best student against the teacher."""
    teacher, _, student, *_ = speed.models
    slow = speed.row(teacher, 5)
    targets = {"fairseq": ("10; Lin et al.: up to 14", 10), "ctranslate2:int8": ("", 30)}
    for engine, (published, target) in targets.items():
        if any(row.engine == engine for row in speed.rows):
            times = speed.row(student, 1, engine).sentences_per_second
            times /= slow.sentences_per_second
            yield Claim(
                f"{student}, greedy, engine {engine}: at least {target} times as fast as the "
                "teacher with beam 5, engine fairseq",
                published,
                f"{times:.1f}",
                reached(times >= target),
                speed.source,
            )


def pruning_claims(updates, greedy, beam):
    """Kim & Rush's claims on pruned students.

    Args:
        updates: such as ``4000+1500``, for training and retraining
        greedy, beam: `Comparison` with the unpruned student's greedy decoding; with its beam 5
    """
    teacher = beam.models[TEACHER].nonzero_parameters
    published = {13: -0.4, 26: -1.0}
    for model in list(greedy.models)[1:]:
        fewer = teacher / greedy.models[model].nonzero_parameters
        # The published loss at the largest compression that this student has.
        target = min(loss for times, loss in published.items() if fewer >= times or times == 13)
        for decoding, size, comparison in (("greedy", 1, greedy), ("beam 5", 5, beam)):
            gain = comparison.gain(model, size)
            yield Claim(
                f"{model}, {updates} updates, {fewer:.1f} times fewer non-zero parameters than "
                f"the teacher: gain over the unpruned student, {decoding}",
                ", ".join(f"{loss} at {times} times" for times, loss in published.items()),
                format_gain(gain),
                verdict_on(gain, target),
                comparison.source,
            )


def markdown_table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def claims_table(claims):
    return markdown_table(
        ["claim", "published", "measured [95 %]", "verdict", "source"], claims
    )


def methods_table(results, folder):
    gain = f"gain over {NONE} [95 %]"
    header = ["student", "validation BLEU, greedy", "best update", "training minutes"]
    header += ["test BLEU, greedy", gain, "test BLEU, beam 5", gain, "mode mass"]
    rows = [methods_row(results, model, folder) for model in results.over_greedy.models]
    return markdown_table(header, rows)


def methods_row(results, model, folder):
    validation_bleu, update = results.best_validation(model)
    summary = results.over_beam.models[model]
    cells = [model, f"{validation_bleu:.2f}", update, training_minutes(summary, folder)]
    for size, comparison in ((1, results.over_greedy), (5, results.over_beam)):
        cells.append(f"{comparison.row(model, size).bleu:.2f}")
        cells.append("" if model == NONE else format_gain(comparison.gain(model, size)))
    return [*cells, f"{100 * summary.mode_mass:.1f} %"]


def training_minutes(summary, folder):
    """The time of a model's last training, with a link to the log."""
    log = training_log(summary, folder)
    seconds = re.findall(r"done training in ([\d.]+) seconds", log.read_text(encoding="utf-8"))
    return f"[{float(seconds[-1]) / 60:.0f}](logs/{log.name})"


def training_log(summary, folder):
    """The log of a model's last training, which has the name of the model's folder."""
    return folder / "logs" / f"{Path(summary.path).parent.name}.log"


def report_names(folder, pattern):
    """The sorted names of the reports that match a pattern."""
    return sorted(path.parent.name for path in folder.glob(f"{pattern}/report.json"))


def print_plot(folder, title, path):
    """Print a link to a plot if it exists: without matplotlib there are none."""
    if (folder / path).exists():
        print(f"![{title}]({path})\n")


def print_results(results, folder):
    claims = [*quality_claims(results), *greedy_claims(results), *imitation_claims(results)]
    print(f"**{results.name}** (student, updates, seed)\n")
    print(claims_table(claims) + "\n")
    print(methods_table(results, folder) + "\n")
    title = "greedy BLEU on the validation set during training"
    print_plot(folder, title, f"beam-{results.name}/training-bleu.svg")


def main(folder):
    folder = Path(folder)
    for name in report_names(folder, "beam-*"):
        print_results(Results(folder, name.partition("-")[2]), folder)
    print("**Speed and size**\n")
    claims = []
    for name in report_names(folder, "speed-*"):
        claims += speed_claims(Comparison(folder, name))
        print_plot(folder, "BLEU against speed", f"{name}/speed.svg")
    for name in report_names(folder, "pruned-*-greedy"):
        _, updates, _ = name.split("-")
        both = (Comparison(folder, f"pruned-{updates}-{way}") for way in ("greedy", "beam"))
        claims += pruning_claims(updates, *both)
    print(claims_table(claims))


if __name__ == "__main__":
    main(*sys.argv[1:])
