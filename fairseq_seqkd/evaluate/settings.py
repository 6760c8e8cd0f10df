"""The settings of an evaluation."""

import math
from dataclasses import dataclass
from typing import List, Optional

from fairseq_seqkd.decoding.refinement_engine import DEFAULT_MAX_ITER
from fairseq_seqkd.decoding.search import SearchOptions


@dataclass
class Settings:
    """The settings of an evaluation.

    Attributes:
        data: the data-bin
        split: the splits that are translated, separated by commas
        languages: source and target, for models that do not say; None infers them
        data_of: {name: data-bin} for models with other dictionaries; the same sentences
        engines: engine names; None takes all that can be used
        shortlists: {name: what its vocabulary map is or is counted from}, see `load_shortlist`
        devices: ``cpu``, ``cuda``; None takes the CPU, and a GPU if there is one
        beams: beam sizes, 1 is greedy
        lenpen: exponent of the length in a beam's scores; None is 1
        tune_lenpen: the split on which every model's best one is found
        max_len_a, max_len_b: as of `SearchOptions`
        max_iter: iterations of non-autoregressive models, which have no beam; None is
            fairseq-generate's default
        remove_bpe, moses, spm_model: how tokens become text, see `Detokeniser`
        reference_files: a text file with one reference a line for every split, in their order;
            None takes the splits' gold targets
        against: names of rows that all are compared with, see `row_name`; empty: the first
            model's largest beam
        side_by_side: names of two rows whose sentences are compared, see `row_name`
        rounds: how often everything is timed
        threads: number of CPU threads; None leaves it to torch
        draft_for: name of a model for which the others draft; None: no drafts are measured
        draft_tokens: tokens that they draft a round
    Raises:
        ValueError: a split is named twice, or has no name; a length penalty without a beam, or
            tuned on the sentences that are scored; or see `SearchOptions`
    """

    data: str
    split: str = "test"
    languages: tuple = (None, None)
    data_of: Optional[dict] = None
    engines: Optional[List[str]] = None
    shortlists: Optional[dict] = None
    devices: Optional[List[str]] = None
    beams: tuple = (1, 5)
    lenpen: Optional[float] = None
    tune_lenpen: Optional[str] = None
    max_len_a: float = 0
    max_len_b: int = 200
    max_iter: Optional[int] = None
    remove_bpe: Optional[str] = None
    moses: Optional[str] = None
    spm_model: Optional[str] = None
    reference_files: Optional[List[str]] = None
    against: tuple = ()
    side_by_side: tuple = ()
    rounds: int = 5
    threads: Optional[int] = None
    draft_for: Optional[str] = None
    draft_tokens: int = 4

    def __post_init__(self):
        self._check_splits()
        self._check_length_penalty()
        self.search(beam=1)
        if self.max_iter is not None and self.max_iter < 0:
            raise ValueError(f"--iter-decode-max-iter is {self.max_iter}, expected 0 or more")

    def _check_splits(self):
        names = self.split_names
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(
                f"--split is {self.split!r}: {twice[0]!r} is named twice, and its sentences "
                "would count twice. Expected different splits, separated by commas."
            )
        if not all(names):
            raise ValueError(
                f"--split is {self.split!r}, expected names of splits separated by commas, "
                "such as test,test1"
            )

    def _check_length_penalty(self):
        given = {"--lenpen": self.lenpen, "--tune-lenpen": self.tune_lenpen}
        flags = [flag for flag, value in given.items() if value is not None]
        if len(flags) > 1:
            raise ValueError("--lenpen and --tune-lenpen are two ways: give one of them")
        if flags and max(self.beams) == 1:
            raise ValueError(
                f"{flags[0]} has no effect on greedy decoding: expected a beam above 1 in "
                "--beams, such as --beams 1 5"
            )
        if self.lenpen is not None and not math.isfinite(self.lenpen):
            raise ValueError(f"--lenpen is {self.lenpen}, expected a number such as 1.2")
        if self.tune_lenpen in self.split_names:
            raise ValueError(
                f"--tune-lenpen is {self.tune_lenpen!r}, which --split translates: a length "
                "penalty that is tuned on the sentences it is scored on gains by chance. "
                "Expected another split, such as valid."
            )

    def search(self, beam, lenpen=None):
        """The `SearchOptions` of a beam; a length penalty that is given counts, else --lenpen.

        Raises:
            ValueError: see `SearchOptions`
        """
        if lenpen is None:
            lenpen = 1.0 if self.lenpen is None or beam == 1 else self.lenpen
        lengths = {"max_len_a": self.max_len_a, "max_len_b": self.max_len_b}
        return SearchOptions(beam=beam, lenpen=lenpen, **lengths)

    def beams_of(self, candidate):
        """The beam sizes with which a `Candidate` decodes; 1 stands for no beam."""
        return [1] if candidate.is_refining else list(self.beams)

    @property
    def iterations(self):
        """The iterations of non-autoregressive models."""
        return DEFAULT_MAX_ITER if self.max_iter is None else self.max_iter

    @property
    def split_names(self):
        """The names of the splits."""
        return self.split.split(",")
