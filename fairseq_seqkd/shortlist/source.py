"""Opens what --shortlist names: a data-bin, a store, an exported folder, or a map itself."""

import os
from typing import NamedTuple, Optional

from fairseq_seqkd.databin import open_split
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.models.dictionaries import first_difference
from fairseq_seqkd.models.language_tokens import languages_of
from fairseq_seqkd.shortlist.vocabulary_map import DEFAULT_SIZE, FILE, VocabularyMap


class Shortlist(NamedTuple):
    """A vocabulary map, and where it comes from.

    Attributes:
        map: `VocabularyMap`
        path: the data-bin that it was counted from, or its file
        pairs: number of pairs that it was counted from; None: it was read
    """

    map: VocabularyMap
    path: str
    pairs: Optional[int] = None

    def __str__(self):
        counted = "" if self.pairs is None else f", counted from {self.pairs:,} pairs"
        return f"shortlist of {len(self.map.candidates):,} source symbols{counted}: {self.path}"


def load_shortlist(path, task, size=None):
    """Read a vocabulary map, or count it from the training pairs of a data-bin.

    Args:
        path: ``vmap.txt``, a folder that has one, a store, or a data-bin
        task: the fairseq task with the student's dictionaries
        size: of the map, see `VocabularyMap.count`; None: the default
    Returns:
        a `Shortlist`
    Raises:
        FileNotFoundError: there is nothing of the kind
        ValueError: it belongs to other dictionaries, or the size is given for a finished map
    """
    file = os.path.join(path, FILE) if os.path.isdir(path) else path
    if os.path.isfile(file):
        return _read(file, task, size)
    if not os.path.isdir(path):
        raise FileNotFoundError(
            f"--shortlist: there is no {path!r}, expected a store or a data-bin, from whose "
            f"pairs it is counted, or a finished {FILE}"
        )
    folder, name = _databin_of(path)
    split = open_split(folder, name, *languages_of(task))
    _check_split(split, task)
    counted, pairs = VocabularyMap.count(split, DEFAULT_SIZE if size is None else size)
    return Shortlist(counted, folder, pairs)


def _read(file, task, size):
    if size is not None:
        raise ValueError(
            f"--shortlist-size is for counting: {file!r} is a finished map. Leave it out, or "
            "name a data-bin or a store."
        )
    found = VocabularyMap.load(file)
    found.check(task, file)
    return Shortlist(found, file)


def _databin_of(path):
    """The data-bin of a store, with the name of its split; a data-bin is its own.

    Raises:
        ValueError: the store has no data-bin, or several and none of them is ``best``
    """
    if not os.path.isfile(os.path.join(path, "manifest.json")):
        return path, "train"
    split = read_json(os.path.join(path, "manifest.json"))["data"]["split"]
    names = [
        name
        for name in sorted(os.listdir(path))
        if os.path.isfile(os.path.join(path, name, "target_spec.json"))
    ]
    names = ["best"] if "best" in names else names
    if len(names) != 1:
        raise ValueError(
            f"--shortlist: the store {path!r} has {', '.join(names) or 'no data-bin yet'}, "
            "expected best, or one data-bin. Name one of them, or let fairseq-seqkd generate "
            "finish it."
        )
    return os.path.join(path, names[0]), split


def _check_split(split, task):
    """Refuse a data-bin of other dictionaries, or without pairs."""
    if not split.has_gold or not len(split):
        raise ValueError(
            f"--shortlist: {split.folder!r} has no sentence pairs in {split.name!r}, expected "
            "a data-bin with sources and targets"
        )
    for side in ("source", "target"):
        found, expected = (getattr(one, f"{side}_dictionary") for one in (split.task, task))
        difference = first_difference(found.symbols, expected.symbols)
        if difference is not None:
            index, ours, theirs = difference
            raise ValueError(
                f"--shortlist: the {side} dictionary of {split.folder!r} ({len(found)} "
                f"symbols) is not the student's ({len(expected)} symbols): at index {index} "
                f"it has {ours}, the student {theirs}. Name a data-bin that was binarised "
                "with the student's dictionaries."
            )
