"""The settings of an evaluation."""

from dataclasses import dataclass
from typing import List, Optional


@dataclass
class Settings:
    """The settings of an evaluation.

    Attributes:
        data: the data-bin
        split: the splits that are translated, separated by commas
        languages: source and target, for models that do not say; None infers them
        data_of: {name: data-bin} for models with other dictionaries; the same sentences
        engines: engine names; None takes all that can be used
        devices: ``cpu``, ``cuda``; None takes the CPU, and a GPU if there is one
        beams: beam sizes, 1 is greedy
        remove_bpe, moses, spm_model: how tokens become text, see `Detokeniser`
        reference_files: a text file with one reference a line for every split, in their order;
            None takes the splits' gold targets
        rounds: how often everything is timed
        threads: number of CPU threads; None leaves it to torch
    Raises:
        ValueError: a split is named twice, or has no name
    """

    data: str
    split: str = "test"
    languages: tuple = (None, None)
    data_of: Optional[dict] = None
    engines: Optional[List[str]] = None
    devices: Optional[List[str]] = None
    beams: tuple = (1, 5)
    remove_bpe: Optional[str] = None
    moses: Optional[str] = None
    spm_model: Optional[str] = None
    reference_files: Optional[List[str]] = None
    rounds: int = 5
    threads: Optional[int] = None

    def __post_init__(self):
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

    @property
    def split_names(self):
        """The names of the splits."""
        return self.split.split(",")
