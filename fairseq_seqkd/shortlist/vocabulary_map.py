"""A vocabulary map: what CTranslate2's ``use_vmap`` lets a model say about a source.

CTranslate2's file ``vmap.txt`` has a line a source symbol: the symbol, a tab, and its target
symbols with spaces between them. Those of the line without a source symbol are always allowed,
and the special symbols are, in the file or not. The output layer of a batch is computed for
the symbols of all of its sources only.
"""

from typing import Dict, List, NamedTuple

import numpy as np

from fairseq_seqkd.io.files import atomic_file
from fairseq_seqkd.models.dictionaries import unique_symbols
from fairseq_seqkd.shortlist.association import most_probable, translation_table

FILE = "vmap.txt"
DEFAULT_SIZE = 50
# Always allowed: function words and endings, which belong to no source symbol.
_FREQUENT = 100
# Pairs that are counted, at most; more of them change the likeliest symbols little.
_PAIRS = 100_000


class VocabularyMap(NamedTuple):
    """The target symbols that are allowed.

    Attributes:
        always: whatever the source
        candidates: {source symbol: its target symbols}
    """

    always: List[str]
    candidates: Dict[str, List[str]]

    @classmethod
    def count(cls, split, size=DEFAULT_SIZE):
        """Count a map from sentence pairs; each symbol may also be copied.

        Args:
            split: `PairSplit`; of more than 100,000 pairs so many, evenly spread
            size: target symbols of each source symbol, besides the 100 most frequent ones
        Returns:
            a map, and the number of pairs it was counted from
        """
        dictionaries = split.task.source_dictionary, split.task.target_dictionary
        sources, targets = (np.array(unique_symbols(one)) for one in dictionaries)
        special = dictionaries[1].nspecial
        pairs = _pairs_of(split.dataset)
        always = _most_frequent([target for _, target in pairs], len(targets), special)
        table = translation_table(pairs, len(targets))
        likely = most_probable(table, size, {*always, *range(special)})
        candidates = {
            source: targets[likely.get(index, [])].tolist()
            for index, source in enumerate(sources.tolist())
            if index >= dictionaries[0].nspecial
        }
        _allow_copies(candidates, targets[special:].tolist())
        return cls(targets[always].tolist(), candidates), len(pairs)

    @classmethod
    def load(cls, path):
        """Read a map that `write` wrote, or another program in CTranslate2's format.

        Raises:
            OSError: the file cannot be read
            ValueError: a line has no tab; gives its number
        """
        with open(path, encoding="utf-8", newline="\n") as file:
            lines = [line.rstrip("\r\n") for line in file]
        candidates = {}
        for number, line in enumerate(lines, 1):
            source, tab, targets = line.partition("\t")
            if not tab:
                raise ValueError(
                    f"--shortlist: line {number} of {path!r} has no tab, expected a source "
                    "symbol, a tab and target symbols, as in a vmap.txt that fairseq-seqkd "
                    "export --shortlist wrote"
                )
            candidates[source] = targets.split()
        return cls(candidates.pop("", []), candidates)

    def write(self, path):
        """Write the map in CTranslate2's format, atomically."""
        lines = [("", self.always), *self.candidates.items()]
        text = "".join(f"{source}\t{' '.join(targets)}\n" for source, targets in lines)
        with atomic_file(path) as file:
            file.write(text.encode())

    def check(self, task, path):
        """Refuse a map of another vocabulary, whose symbols CTranslate2 would take as unknown.

        Args:
            task: the fairseq task with the student's dictionaries
            path: of the map, for the message
        Raises:
            ValueError: names the first symbol that the student's dictionaries do not have
        """
        dictionaries = [
            set(unique_symbols(one)) for one in (task.source_dictionary, task.target_dictionary)
        ]
        for source, targets in [("", self.always), *self.candidates.items()]:
            # Several source symbols, with spaces between them, may form a key.
            _check_symbols("source", [source] * bool(source), dictionaries[0], path)
            _check_symbols("target", targets, dictionaries[1], path)


def _check_symbols(side, symbols, dictionary, path):
    unknown = [s for symbol in symbols for s in symbol.split(" ") if s not in dictionary]
    if unknown:
        raise ValueError(
            f"--shortlist: {path!r} is a map of another vocabulary: it has the {side} symbol "
            f"{unknown[0]!r}, expected symbols of the student's {side} dictionary "
            f"({len(dictionary)} symbols). Name a data-bin or a store of the student's "
            "dictionaries, and the map is counted from its pairs."
        )


def _pairs_of(dataset):
    """[(source, target)], the target without EOS; of many pairs some, evenly spread."""
    number = min(_PAIRS, len(dataset))
    ids = np.linspace(0, len(dataset) - 1, number).astype(np.int64).tolist()
    return [(dataset.src[i].numpy(), dataset.tgt[i].numpy()[:-1]) for i in ids]


def _allow_copies(candidates, targets):
    """Add every source symbol to its own candidates, if it is a target symbol as well.

    Names and numbers are copied, also those that no pair has.
    """
    targets = set(targets)
    for source, likely in candidates.items():
        if source in targets and source not in likely:
            likely.append(source)


def _most_frequent(targets, symbols, special):
    """The most frequent symbols that are not special, the most frequent first."""
    frequency = np.bincount(np.concatenate(targets), minlength=symbols)[special:]
    order = np.argsort(-frequency, kind="stable")[:_FREQUENT]
    return (order[frequency[order] > 0] + special).tolist()
