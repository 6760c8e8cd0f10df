"""The data of an evaluation, from which its tables, files and plots are made."""

from dataclasses import dataclass, field, fields
from statistics import median
from typing import Dict, List, Optional


@dataclass
class ModelSummary:
    """Properties of a model that do not depend on how it decodes.

    Attributes:
        name: the model's name in the report
        path: its checkpoint, or several separated by colons; those of several seeds are
            separated by commas, and the numbers are means over them
        data: the data-bin with its subwords
        parameters: number of parameters, each counted once
        nonzero_parameters: number of parameters that are not zero
        checkpoint_bytes: size of the checkpoint, optimizer state included
        mode_mass: mean probability of the model's own beam output, from 0 to 1
            (Kim & Rush 2016, section 5); None if it did not decode with fairseq
        greedy_equals_beam: fraction of sentences for which greedy decoding finds the output of
            the largest beam; None unless both were run
    """

    name: str
    path: str
    data: str
    parameters: int
    nonzero_parameters: int
    checkpoint_bytes: int
    mode_mass: Optional[float] = None
    greedy_equals_beam: Optional[float] = None


@dataclass
class Seed:
    """A checkpoint of a row.

    Attributes:
        path: the checkpoint, or several separated by colons
        lenpen: exponent of the length in the scores of a beam
        lenpen_bleu: {length penalty: BLEU} on the split that it was tuned on; else empty
        outputs: {name of a split: file with the output in the report's folder}
    """

    path: str
    lenpen: float = 1.0
    lenpen_bleu: Dict[str, float] = field(default_factory=dict)
    outputs: Dict[str, str] = field(default_factory=dict)


@dataclass
class Scores:
    """The scores of a row on one split.

    Attributes:
        bleu, chrf: corpus scores, 0 to 100, over every line
        brevity_penalty: BLEU's factor for output that is shorter than the references, up to 1
        length_ratio: tokens of the translations divided by those of the references, as BLEU
            counts them
        gain: {"bleu": BLEU minus the baseline's, "low", "high": its 95 % interval by paired
            bootstrap}; None for the baseline itself
        gains: {name of a row: such a gain over it}, for every row in `Report.against`
        seed_bleu, seed_chrf: the scores of each seed; the others are means over them
    """

    bleu: float = 0.0
    chrf: float = 0.0
    brevity_penalty: float = 1.0
    length_ratio: float = 0.0
    gain: Optional[Dict[str, float]] = None
    gains: Dict[str, Dict[str, float]] = field(default_factory=dict)
    seed_bleu: List[float] = field(default_factory=list)
    seed_chrf: List[float] = field(default_factory=list)

    @classmethod
    def copy_of(cls, row):
        """The scores of a `Row` on all sentences."""
        return cls(**{one.name: getattr(row, one.name) for one in fields(cls)})


@dataclass
class Row:
    """One model, or several seeds of it, decoding with one engine, beam and device.

    Attributes:
        model: the model's name
        engine: ``fairseq`` or ``ctranslate2:TYPE``
        device: ``cpu`` or ``cuda``
        threads: number of CPU threads
        beam: beam size, 1 is greedy
        weight_bytes: size of the weights in the file that the engine loads
        command: shell command that reproduces the translations and scores
        iterations: of a non-autoregressive model, which has no beam; None for others
        seeds: a `Seed` for each of its checkpoints
        bleu, chrf, brevity_penalty, length_ratio, gain, gains, seed_bleu, seed_chrf: as of
            `Scores`, over the sentences of all splits together
        splits: {name of a split: `Scores`}
        bleu_by_length: BLEU on each of `Report.length_groups`
        defects: {kind of defect: number of lines}, see `DefectCounter`; a mean over seeds
        tokens: number of tokens in all translations of the first seed, each sentence's EOS
            included
        sentences: number of translations of a seed
        seconds: (chunks, rounds) decoding times of the first seed, without loading the model
    """

    model: str
    engine: str
    device: str
    threads: int
    beam: int
    weight_bytes: int
    command: str
    iterations: Optional[int] = None
    seeds: List[Seed] = field(default_factory=list)
    bleu: float = 0.0
    chrf: float = 0.0
    brevity_penalty: float = 1.0
    length_ratio: float = 0.0
    gain: Optional[Dict[str, float]] = None
    gains: Dict[str, Dict[str, float]] = field(default_factory=dict)
    seed_bleu: List[float] = field(default_factory=list)
    seed_chrf: List[float] = field(default_factory=list)
    splits: Dict[str, Scores] = field(default_factory=dict)
    bleu_by_length: List[float] = field(default_factory=list)
    defects: Dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    sentences: int = 0
    seconds: List[List[float]] = field(default_factory=list)

    @property
    def name(self):
        """``MODEL:beamN``, as `row_name` returns it."""
        return f"{self.model}:beam{self.beam}"

    @property
    def decoding(self):
        """``greedy``, ``beam N`` or ``N iterations``."""
        if self.iterations is not None:
            return f"{self.iterations} iterations"
        return "greedy" if self.beam == 1 else f"beam {self.beam}"

    def total_seconds(self, over_rounds=median):
        """Decoding time of all sentences.

        It is a sum over chunks: other programs disturb single chunks, and seldom the same chunk
        in most rounds.

        Args:
            over_rounds: how a chunk's times are reduced to one: the median, ``min`` or ``max``
        """
        return sum(map(over_rounds, self.seconds))

    @property
    def sentences_per_second(self):
        """Sentences per second, from the median time of each chunk."""
        return self.sentences / self.total_seconds()

    @property
    def tokens_per_second(self):
        """Tokens per second, from the median time of each chunk."""
        return self.tokens / self.total_seconds()

    @property
    def speed_range(self):
        """Sentences per second with every chunk at its slowest, and at its fastest."""
        return self.sentences / self.total_seconds(max), self.sentences / self.total_seconds(
            min
        )


@dataclass
class DraftRow:
    """A model that drafts for a teacher, see `DraftCounts`.

    Attributes:
        teacher, model: their names
        device: ``cpu`` or ``cuda``
        decoding: ``greedy``, or ``samples`` at temperature 1
        draft_tokens: the most tokens that are drafted a round
        tokens: of the translations, with their ends
        drafted_per_round, accepted_per_round: mean number of drafted tokens, and of those
            that the teacher kept
        acceptance_rate: kept tokens among those up to the first rejected one, from 0 to 1
        block_efficiency: tokens for each run of the teacher
        teacher_step_seconds, step_seconds: time in which each model reads a token
        cost_ratio: the second divided by the first
        expected_speedup: see `DraftCounts.expected_speedup`
    """

    teacher: str
    model: str
    device: str
    decoding: str
    draft_tokens: int
    tokens: int
    drafted_per_round: float
    accepted_per_round: float
    acceptance_rate: float
    block_efficiency: float
    teacher_step_seconds: float
    step_seconds: float
    cost_ratio: float
    expected_speedup: float


@dataclass
class Difference:
    """A sentence that two rows translate differently.

    Attributes:
        where: its split and line
        source, reference: text
        texts: the two translations
        chrf: the sentence chrF of each
    """

    where: str
    source: str
    reference: str
    texts: List[str]
    chrf: List[float]


@dataclass
class Comparison:
    """The sentences on which two rows differ most.

    Attributes:
        rows: the names of the two rows
        sentences: `Difference` list, the largest first
    """

    rows: List[str]
    sentences: List[Difference]


@dataclass
class Report:
    """The results of an evaluation.

    Attributes:
        split: name of the split that was translated; of several, separated by commas
        sentences: number of their sentences
        models: one `ModelSummary` a model
        rows: one `Row` for every model, engine, device and beam
        signatures: {metric: sacreBLEU's signature}
        length_groups: (shortest, longest) source in tokens of each group of sentences
        curves: {name: {metric: [(update, value), ...]}} from the logs of trainings
        notes: remarks for the reader, such as an engine that could not be used
        command: the shell command that made this report
        versions: {name: version} of the software, processor and GPU
        splits: {name of a split: number of its sentences}
        against: names of the rows that all are compared with
        lenpen_split: the split that length penalties were tuned on; None: they were not
        reference_defects: as of `Row`, of the references
        side_by_side: `Comparison` of two rows; None if there is one row
        lines_with_numbers: number of sources with a number in digits
        drafts: a `DraftRow` for every model, device and way of decoding that drafts for the
            teacher that was named; else empty
    """

    split: str
    sentences: int
    models: List[ModelSummary]
    rows: List[Row]
    signatures: Dict[str, str] = field(default_factory=dict)
    length_groups: List[tuple] = field(default_factory=list)
    curves: Dict[str, dict] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)
    command: str = ""
    versions: Dict[str, str] = field(default_factory=dict)
    splits: Dict[str, int] = field(default_factory=dict)
    against: List[str] = field(default_factory=list)
    lenpen_split: Optional[str] = None
    reference_defects: Dict[str, int] = field(default_factory=dict)
    lines_with_numbers: int = 0
    side_by_side: Optional[Comparison] = None
    drafts: List[DraftRow] = field(default_factory=list)

    @property
    def baseline(self):
        """The row that the speedup compares with, the first in `compared`."""
        return self.compared[0]

    @property
    def compared(self):
        """The rows that all are compared with; by default the first model's largest beam."""
        if self.against:
            return list(map(self.row, self.against))
        first = self.models[0].name
        beams = [row.beam for row in self.rows if row.model == first]
        return [self.row(f"{first}:beam{max(beams)}")]

    def row(self, name):
        """The row of this name; of several engines and devices the first."""
        return next(row for row in self.rows if row.name == name)

    def model(self, name):
        """The `ModelSummary` of this name."""
        return next(model for model in self.models if model.name == name)


def row_name(text, beams, flag="--against"):
    """The name of a row, ``MODEL:beamN``, of what a user typed: ``MODEL[:beamN]``.

    Args:
        text: without a beam, the largest is meant
        beams: {model: beam sizes of its rows}
        flag: for the error message
    Raises:
        ValueError: there is no such row
    """
    names = {model: f"{model}:beam{max(sizes)}" for model, sizes in beams.items()}
    full = [f"{model}:beam{size}" for model, sizes in beams.items() for size in sizes]
    names.update(zip(full, full))
    if text not in names:
        raise ValueError(
            f"{flag}: found {text!r}, expected NAME or NAME:beamN, one of {', '.join(full)}"
        )
    return names[text]
