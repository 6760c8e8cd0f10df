"""The kept results of claims.sh: translations of every row, and BLEU's numbers of them."""

import gzip
import json
import re
from pathlib import Path
from typing import List, NamedTuple

import numpy as np

from fairseq_seqkd.evaluate import quality
from fairseq_seqkd.evaluate.curves import read_curves

TESTS = {"test_2016": ("test",), "test_2018": ("test1",), "both": ("test", "test1")}
DECODINGS = {"greedy": 1, "beam 5": 5}
NONE = "none.wide"


class NotYet(Exception):
    """Something that the page needs is not measured yet; the text names it."""


class Row:
    """A trained model's kept results.

    Args:
        folder: of the row, in ``rows``
    """

    def __init__(self, folder):
        self.name = folder.name
        self.folder = folder
        self.report = load_report(folder)
        with gzip.open(folder / "statistics.json.gz", "rt") as file:
            content = json.load(file)
        self.stats = {
            decoding: {split: np.array(rows) for split, rows in of_splits.items()}
            for decoding, of_splits in content.items()
        }

    def statistics(self, decoding, test="both"):
        """(sentences, 10) BLEU's numbers; see `quality.sentence_stats`."""
        return np.concatenate([self.stats[decoding][split] for split in TESTS[test]])

    def score(self, decoding, test="both"):
        """sacreBLEU's score, with its brevity penalty."""
        return quality.corpus_bleu(self.statistics(decoding, test))

    def resampled(self, decoding):
        """(resamples,) BLEU of resampled test sentences."""
        return quality.resampled_bleu(self.statistics(decoding))

    @property
    def lenpen(self):
        """The length penalty of the beam search."""
        return lenpen_of(self.report)

    @property
    def nonzero_parameters(self):
        return self.report["models"][0]["nonzero_parameters"]


class Method(NamedTuple):
    """The rows of one method and size that differ in their seeds alone.

    Attributes:
        name: such as ``none.wide``
        rows: list of `Row`
    """

    name: str
    rows: List[Row]

    @classmethod
    def of_rows(cls, folder):
        """{name: `Method`} of all rows that are kept in a folder of results."""
        methods = {}
        for path in sorted((Path(folder) / "rows").iterdir()):
            row = Row(path)
            name = re.sub(r"\.\d+$", "", row.name) if row.name.count(".") == 2 else row.name
            methods.setdefault(name, cls(name, [])).rows.append(row)
        return methods

    def bleu(self, decoding, test="both"):
        """The mean BLEU of the seeds."""
        return float(np.mean([row.score(decoding, test).score for row in self.rows]))

    def brevity(self, decoding):
        return float(np.mean([row.score(decoding).bp for row in self.rows]))

    def resampled(self, decoding):
        """(resamples,) means over the seeds."""
        return np.mean([row.resampled(decoding) for row in self.rows], axis=0)

    def gain(self, decoding, other, other_decoding=None):
        """{"bleu", "low", "high"} over another method: paired bootstrap on the seeds' mean."""
        other_decoding = other_decoding or decoding
        return quality.bleu_gain(
            self.bleu(decoding),
            self.resampled(decoding),
            other.bleu(other_decoding),
            other.resampled(other_decoding),
        )


class Results:
    """All kept results.

    Args:
        folder: such as ``examples/multi30k/results``
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.methods = Method.of_rows(folder)

    def method(self, name):
        """The `Method` of a name; raises `NotYet`."""
        if name not in self.methods:
            raise NotYet(name)
        return self.methods[name]

    @property
    def teacher(self):
        return self.method("teacher")

    @property
    def none(self):
        return self.method(NONE)

    @property
    def best(self):
        """The best distilled student's `Method`."""
        return self.method(self.best_row.rpartition(".")[0])

    @property
    def best_row(self):
        """The name of the best distilled student by validation, so far if rows are missing."""
        if (self.folder / "best").exists():
            return (self.folder / "best").read_text().strip()
        candidates = [
            row
            for method in self.methods.values()
            for row in method.rows
            if row.name.endswith(".wide.1") and not row.name.startswith("none")
        ]
        if not candidates:
            raise NotYet("a distilled student")
        return max(candidates, key=self.validation).name

    def validation(self, row):
        """The best greedy BLEU of a row's training on the validation set; None if unknown."""
        log = self.folder / "logs" / f"{row.name}.log"
        curve = read_curves(log).get("bleu") if log.exists() else None
        return max(bleu for _, bleu in curve) if curve else None

    def speed(self, model, beam, engine):
        """The row of the speed report; raises `NotYet`."""
        if not (self.folder / "speed").exists():
            raise NotYet("speed")
        (row,) = [
            row
            for row in load_report(self.folder / "speed")["rows"]
            if (row["model"], row["beam"], row["engine"]) == (model, beam, engine)
        ]
        return row


def lenpen_of(report):
    """The length penalty of a report's beam search."""
    return next(row["seeds"][0]["lenpen"] for row in report["rows"] if row["beam"] > 1)


def load_report(folder):
    return json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))


def keep(evaluation, folder):
    """Copy a row's translations, compressed, and store their `quality.sentence_stats`.

    Args:
        evaluation: folder that ``fairseq-seqkd evaluate`` wrote
        folder: of the row
    """
    evaluation, stats = Path(evaluation), {}
    for row in load_report(evaluation)["rows"]:
        decoding = "greedy" if row["beam"] == 1 else f"beam {row['beam']}"
        stats[decoding] = {}
        for split, name in row["seeds"][0]["outputs"].items():
            output = (evaluation / name).read_bytes()
            kept = Path(folder) / f"{split}.{decoding.replace(' ', '')}.txt.gz"
            kept.write_bytes(gzip.compress(output, 9, mtime=0))
            references = evaluation / "outputs" / split / "reference.txt"
            both = output.decode(), references.read_text(encoding="utf-8")
            texts = [text.split("\n")[:-1] for text in both]
            stats[decoding][split] = quality.sentence_stats(*texts).tolist()
    content = json.dumps(stats, separators=(",", ":")).encode()
    (Path(folder) / "statistics.json.gz").write_bytes(gzip.compress(content, 9, mtime=0))
