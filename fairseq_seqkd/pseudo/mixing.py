"""Mixes data-bins into one that stock fairseq trains on; a copy costs index entries alone."""

import glob
import os
import re
from dataclasses import dataclass

import numpy as np

from fairseq_seqkd.databin import PairSplit, open_split
from fairseq_seqkd.io.files import atomic_directory, read_json, write_json
from fairseq_seqkd.models.dictionaries import first_difference
from fairseq_seqkd.pseudo.pairs import SPLIT, write_pairs

# What else a store's targets depend on; parts that differ in it are mixed, with a note.
_TEACHER_ENTRIES = ("teacher", "search")


@dataclass
class Part:
    """One of the data-bins of a mixture.

    Attributes:
        folder: the data-bin
        copies: how often each of its pairs stands in the mixture
        reverse: whether it was made for the opposite direction, as back-translated data is
    """

    folder: str
    copies: int = 1
    reverse: bool = False

    @classmethod
    def parse(cls, argument):
        """The part that FOLDER, FOLDER=N or reverse:FOLDER=N names.

        Raises:
            ValueError: N is no positive integer
        """
        folder, equals, copies = argument.rpartition("=")
        if os.path.isdir(argument) or not equals:
            folder, copies = argument, "1"
        if not re.fullmatch("[0-9]+", copies) or int(copies) < 1:
            raise ValueError(
                f"{argument!r}: the number of copies is {copies!r}, expected a whole number "
                "from 1 upwards, as in FOLDER=2"
            )
        reverse = folder.startswith("reverse:") and not os.path.isdir(folder)
        return cls(folder[len("reverse:") :] if reverse else folder, int(copies), reverse)

    @property
    def store(self):
        """The manifest of the store that the data-bin belongs to; empty if there is none."""
        if not os.path.exists(os.path.join(self.folder, "target_spec.json")):
            return {}
        path = os.path.join(os.path.dirname(os.path.abspath(self.folder)), "manifest.json")
        return read_json(path) if os.path.exists(path) else {}


@dataclass
class LoadedPart:
    """A `Part` and its training pairs.

    Attributes:
        part: `Part`
        split: `PairSplit`, in the direction of the mixture
    """

    part: Part
    split: PairSplit

    @property
    def ids(self):
        """(pairs of the mixture,) the part's pairs, copy by copy."""
        return np.tile(np.arange(len(self.split)), self.part.copies)

    def describe(self, first_id):
        """The entry of ``mixture.json``; its first pair has the id ``first_id``."""
        described = self.split.describe()
        store = {name: self.part.store.get(name) for name in _TEACHER_ENTRIES}
        return {
            "folder": self.part.folder,
            "reverse": self.part.reverse,
            "copies": self.part.copies,
            "sentences": len(self.split),
            "first_id": first_id,
            "sha256": described["data"]["sha256"],
            "store": store if self.part.store else None,
        }


def mix(out, parts):
    """Write a data-bin with the training pairs of several.

    The other splits and the dictionaries are those of the first part. Ids follow the parts, and
    in a part its copies.

    Args:
        out: the new folder
        parts: list of `Part`
    Returns:
        the content of its ``mixture.json``
    Raises:
        FileExistsError: ``out`` exists
        FileNotFoundError: a part has no training pairs
        ValueError: dictionaries or directions differ, or a part has no targets
    """
    if os.path.exists(out):
        raise FileExistsError(f"{out!r} exists: expected the name of a new folder")
    loaded = load_parts(parts)
    with atomic_directory(out) as folder:
        ids = [one.ids for one in loaded]
        write_pairs(folder, [one.split for one in loaded], ids)
        report = describe(loaded)
        write_json(os.path.join(folder, "mixture.json"), report)
    return report


def load_parts(parts):
    """The `LoadedPart` of each part, all of one direction and with the same dictionaries."""
    for part in parts:
        _check_not_empty(part)
    languages = _direction_of(parts[0])
    loaded = []
    for part in parts:
        split = open_split(part.folder, SPLIT, *languages)
        _check_pairs(part, split)
        if loaded:
            _check_dictionaries(loaded[0].split, split)
        loaded.append(LoadedPart(part, split))
    return loaded


def _direction_of(part):
    """The languages of a mixture whose first part this is: source and target."""
    pair = part.store.get("data", {}).get("pair")
    if pair is None:
        split = open_split(part.folder, SPLIT)
        pair = f"{split.source_lang}-{split.target_lang}"
    languages = tuple(pair.split("-"))
    return languages[::-1] if part.reverse else languages


def _check_not_empty(part):
    """Refuse a part without any pair, whose files cannot be mapped into memory."""
    for path in glob.glob(os.path.join(glob.escape(part.folder), f"{SPLIT}.*.bin")):
        if not os.path.getsize(path):
            raise ValueError(
                f"{part.folder!r} has no training pairs: {path!r} is empty. Leave it out; of a "
                "store's data-bin, target_spec.json says why sentences were dropped."
            )


def _check_pairs(part, split):
    """Refuse a part without targets, or whose targets are on the other side."""
    if not split.has_gold:
        raise ValueError(
            f"{part.folder!r} has sources only: generate targets (fairseq-seqkd generate), and "
            "give the store's data-bin"
        )
    pair = f"{split.source_lang}-{split.target_lang}"
    made_for = part.store.get("data", {}).get("pair")
    opposite = f"{split.target_lang}-{split.source_lang}"
    if made_for == opposite and not part.reverse:
        raise ValueError(
            f"{part.folder!r} has pseudo-targets of the direction {opposite}, and the mixture "
            f"is {pair}: as back-translated data it is reverse:{part.folder}"
        )
    if part.reverse and made_for == pair:
        raise ValueError(
            f"reverse:{part.folder}: its pseudo-targets are of the direction {pair}, which is "
            f"that of the mixture. Leave reverse: out."
        )


def _check_dictionaries(first, other):
    for side in ("src", "tgt"):
        ours, theirs = (getattr(one.dataset, f"{side}_dict") for one in (first, other))
        difference = first_difference(ours.symbols, theirs.symbols)
        if difference is not None:
            index, here, there = difference
            raise ValueError(
                f"the dictionaries of {first.folder!r} and {other.folder!r} differ "
                f"({'source' if side == 'src' else 'target'} side, {len(ours)} and "
                f"{len(theirs)} symbols): at index {index} the first has {here}, the other "
                f"{there}. Binarise all parts with the same dictionaries (fairseq-preprocess "
                "--srcdict, --tgtdict)."
            )


def describe(loaded):
    """The content of ``mixture.json``."""
    counts = [one.part.copies * len(one.split) for one in loaded]
    first_ids = [0, *np.cumsum(counts).tolist()]
    stores = [one.part.store for one in loaded if one.part.store]
    differing = [
        name for name in _TEACHER_ENTRIES if any(s.get(name) != stores[0][name] for s in stores)
    ]
    return {
        "format": 1,
        "sentences": first_ids[-1],
        "parts": [one.describe(begin) for one, begin in zip(loaded, first_ids)],
        "notes": [f"the stores differ in their {name}" for name in differing],
    }


def summary(out, report):
    """Describe a mixture, as lines to print."""
    lines = [f"{out}: {report['sentences']} pairs"]
    for part in report["parts"]:
        name = "reverse:" * part["reverse"] + part["folder"]
        lines.append(
            f"  {part['copies'] * part['sentences']} from {name} ({part['sentences']} pairs, "
            f"{part['copies']} times), ids from {part['first_id']}"
        )
    return lines + [f"  note: {note}" for note in report["notes"]]
