"""What an evaluation finds: plain data, which tables, files and pictures are made of."""

import statistics
from dataclasses import dataclass, field
from typing import Dict, List, Optional


@dataclass
class Model:
    """What is so of a model however it decodes.

    Attributes:
        name, path, data: which model, its checkpoint, and the data-bin that it reads
        parameters, nonzero: all, and those that are not zero, each counted once
        file_bytes: of the checkpoint, with whatever training keeps in it
        mode_mass: the mean probability that it gives to its own beam output, from 0 to 1
            (Kim & Rush 2016, section 5); None if it did not decode through fairseq
        greedy_is_beam: the share of sentences for which greedy decoding finds what the
            largest beam finds; None if one of them was not run
    """

    name: str
    path: str
    data: str
    parameters: int
    nonzero: int
    file_bytes: int
    mode_mass: Optional[float] = None
    greedy_is_beam: Optional[float] = None


@dataclass
class Row:
    """One model decoding in one way.

    Attributes:
        model: its name
        engine: what decodes, such as ``fairseq`` or ``ctranslate2:int8``
        device, threads: where, and with how many threads of a processor
        beam: 1 is greedy
        bytes: of the weights as this engine reads them from a file
        command: what to type to get the translations and the scores again
        bleu, chrf: corpus scores, 0 to 100, on every line of the split
        length_ratio: tokens of the translations by those of the references, as BLEU has them
        difference: BLEU more than the first row has, and the 95 % interval of that by paired
            bootstrap; None for the first row itself
        bleu_by_length: for each of `length_groups`
        tokens: of all translations together, with the end of the sentence
        seconds: (pieces, rounds) what each piece of the text took in each round, loading
            excluded
    """

    model: str
    engine: str
    device: str
    threads: int
    beam: int
    bytes: int
    command: str
    bleu: float = 0.0
    chrf: float = 0.0
    length_ratio: float = 0.0
    difference: Optional[Dict[str, float]] = None
    bleu_by_length: List[float] = field(default_factory=list)
    tokens: int = 0
    sentences: int = 0
    seconds: List[List[float]] = field(default_factory=list)

    @property
    def decoding(self):
        return "greedy" if self.beam == 1 else f"beam {self.beam}"

    def time(self, of_rounds=statistics.median):
        """What the text took, in seconds.

        Taken piece by piece: whatever else the machine does disturbs a piece here and there,
        and seldom the same one in most rounds.

        Args:
            of_rounds: of what a piece took: the median, ``min`` or ``max``
        """
        return sum(map(of_rounds, self.seconds))

    @property
    def sentences_per_second(self):
        return self.sentences / self.time()

    @property
    def tokens_per_second(self):
        return self.tokens / self.time()

    @property
    def range_of_speed(self):
        """Sentences a second, had every piece taken as long as at its slowest; its fastest."""
        return self.sentences / self.time(max), self.sentences / self.time(min)


@dataclass
class Report:
    """Everything.

    Attributes:
        split, sentences: what was translated
        models, rows: `Model` and `Row`; rows are compared with the first
            model's largest beam, see `first`
        signatures: {metric: sacreBLEU's signature}, which says how to get the same number
        length_groups: (shortest, longest) source in tokens of each group of sentences
        curves: {name: {measure: [(update, value), ...]}} from logs of trainings
        notes: what a reader has to know, such as what could not be run
        command: that made this report
        versions: of what it was made with, and the processor's and GPU's names
    """

    split: str
    sentences: int
    models: List[Model]
    rows: List[Row]
    signatures: Dict[str, str] = field(default_factory=dict)
    length_groups: List[tuple] = field(default_factory=list)
    curves: Dict[str, dict] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)
    command: str = ""
    versions: Dict[str, str] = field(default_factory=dict)

    @property
    def first(self):
        """The row that the others are compared with: the first model's largest beam."""
        same = [row for row in self.rows if row.model == self.models[0].name]
        same = [row for row in same if row.engine == same[0].engine]
        return max(same, key=lambda row: row.beam)

    def model(self, name):
        return next(model for model in self.models if model.name == name)
