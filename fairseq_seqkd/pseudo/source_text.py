"""Text to translate, made into a data-bin of sources in the folder ``text`` of a store.

text/text.json    what it was made from, and the numbers of its lines and symbols
text/data-bin/    the lines as the split ``train``, without targets; dictionaries and all other
                  splits are copies of those of DATA
text/lines.bin    the lines themselves; see ``stored_lines.py``
"""

import os
from dataclasses import dataclass, field
from typing import List

from fairseq.data.indexed_dataset import best_fitting_int_dtype

from fairseq_seqkd.chunked.manifest import differences
from fairseq_seqkd.databin import open_split
from fairseq_seqkd.io.files import read_json, sha256, write_json
from fairseq_seqkd.io.locks import make_folder_once, remove_lock_of, seen_at_last
from fairseq_seqkd.io.text import STDIN, TextFile
from fairseq_seqkd.io.unique_lines import UniqueLines
from fairseq_seqkd.models.data_folders import copy_other_splits, single_folder
from fairseq_seqkd.models.datasets import writing_mmap
from fairseq_seqkd.models.loading import open_task
from fairseq_seqkd.models.stored_lines import storing_lines
from fairseq_seqkd.pseudo.subwords import Subwords
from fairseq_seqkd.pseudo.text_encoder import TextEncoder

SPLIT = "train"
MOST_UNKNOWN = 0.1
_TEXT, _DATABIN, _REPORT = "text", "data-bin", "text.json"


@dataclass
class SourceText:
    """Text to translate.

    Attributes:
        files: paths as for `read_lines`
        excluded: paths of texts whose lines are left out, such as test sets
        subwords: `Subwords`
        accept_unknown: the largest fraction of unknown symbols that is accepted
    Raises:
        FileNotFoundError: names the file that does not exist
        ValueError: standard input is named twice
    """

    files: List[str]
    excluded: List[str] = field(default_factory=list)
    subwords: Subwords = field(default_factory=Subwords)
    accept_unknown: float = MOST_UNKNOWN

    def __post_init__(self):
        if [*self.files, *self.excluded].count(STDIN) > 1:
            raise ValueError(f"{STDIN!r} twice: standard input can be read once")
        self.texts = [TextFile(path) for path in self.files]
        self.excluded_texts = [TextFile(path) for path in self.excluded]

    def describe(self):
        """The content of the texts and how it is cut, as entries of ``text.json``."""
        return {
            "files": [text.sha256() for text in self.texts],
            "excluded": sorted({text.sha256() for text in self.excluded_texts}),
            "subwords": self.subwords.describe(),
        }

    def check_symbols(self, encoder):
        """Refuse text of which too many symbols are unknown.

        Args:
            encoder: `TextEncoder` that has encoded it
        Raises:
            ValueError: names the fraction, examples and the flag
        """
        fraction = encoder.unfamiliar_fraction
        if fraction > self.accept_unknown:
            names = ", ".join(text.name for text in self.texts)
            examples = "".join(f", such as {symbol!r}" for symbol in encoder.examples[:1])
            raise ValueError(
                f"--text {names}: {100 * fraction:.1f} % of its {encoder.tokens} subwords are "
                f"unknown{examples}; expected at most {100 * self.accept_unknown:g} %. Is it "
                "in another language or script, or not cut as the teacher's text was (--bpe, "
                f"--spm-model, --tokenizer)? --accept-unknown {fraction + 0.005:.2f} takes it."
            )


def has_text(root):
    """Whether a store was made from text."""
    return os.path.exists(os.path.join(text_folder(root), _REPORT))


def text_folder(root):
    """The folder of a store's text."""
    return os.path.join(root, _TEXT)


def prepare_text(root, text, data, languages=(None, None)):
    """Make the data-bin of sources in a store, unless it is there; other processes wait.

    Args:
        root: the store's folder
        text: `SourceText`
        data: the data-bin with the dictionaries and the other splits
        languages: source and target; None infers them from the file names
    Raises:
        ValueError: the folder was made from other text, no line is left, or see
            `SourceText.check_symbols`
    """
    task = open_task(single_folder(data, SPLIT), *languages)
    made_from = {**_made_from_data(task, data), **text.describe()}
    folder = text_folder(root)
    os.makedirs(root, exist_ok=True)
    if not os.path.exists(folder):
        _check_is_new(root)
    make_folder_once(folder, lambda new: _make(new, text, data, task, made_from))
    if not seen_at_last(lambda: has_text(root)):  # another host's, perhaps
        raise ValueError(
            f"--pseudo-targets: {folder!r} has no {_REPORT}, so it was not made from text. "
            "Delete it, or name another folder."
        )
    _check(folder, made_from)


def _check_is_new(root):
    if os.path.exists(os.path.join(root, "manifest.json")):
        raise ValueError(
            f"--text: the store {root!r} was made from a split of a data-bin. Name another "
            "folder (--pseudo-targets)."
        )


def _check_is_new(root):
    if os.path.exists(os.path.join(root, "manifest.json")):
        raise ValueError(
            f"--text: the store {root!r} was made from a split of a data-bin. Name another "
            "folder (--pseudo-targets)."
        )


def _make(folder, text, data, task, made_from):
    databin = os.path.join(folder, _DATABIN)
    os.mkdir(databin)
    copy_other_splits(data, databin, SPLIT)
    source, target = task.cfg.source_lang, task.cfg.target_lang
    encoder = TextEncoder(task.source_dictionary, text.subwords.cut_in(source))
    lines = UniqueLines(text.texts, text.excluded_texts)
    dtype = best_fitting_int_dtype(len(task.source_dictionary))
    prefix, kept = os.path.join(databin, f"{SPLIT}.{source}-{target}.{source}"), 0
    with writing_mmap(prefix, dtype) as add_sentence, storing_lines(folder) as add_line:
        for line in lines:
            tokens = encoder(line)
            if len(tokens) == 1:  # EOS: nothing is left of the line
                lines.leave_out("empty")
                continue
            kept += 1
            add_sentence(tokens)
            add_line(line)
    text.check_symbols(encoder)
    if not kept:
        raise ValueError(
            f"--text {', '.join(one.name for one in text.texts)}: no line is left to translate "
            f"({_numbers(lines.numbers)}). Expected a sentence on each line."
        )
    symbols = {"all": encoder.tokens, "unknown": encoder.unknown, "bytes": encoder.in_bytes}
    report = {"made_from": made_from, "lines": {"kept": kept, **lines.numbers}}
    write_json(os.path.join(folder, _REPORT), {"format": 1, **report, "symbols": symbols})


def _made_from_data(task, data):
    languages = task.cfg.source_lang, task.cfg.target_lang
    names = sorted({f"dict.{lang}.txt" for lang in languages})
    sums = {name: sha256(os.path.join(data, name)) for name in names}
    return {"pair": "-".join(languages), "dictionaries": sums}


def _check(folder, made_from):
    report = read_json(os.path.join(folder, _REPORT))
    lines = differences(report["made_from"], made_from, exactly="files" in made_from)
    if lines:
        raise ValueError(
            f"--text: {folder!r} was made from other text or data, or with other flags:\n  "
            + "\n  ".join(lines)
            + "\nGive what it was made from, or leave --text and its flags out to go on with "
            "it; or name another folder (--pseudo-targets)."
        )


def open_text(root, data, split, languages=(None, None)):
    """Load the text of a store as `PairSplit`.

    Args:
        root: the store's folder, in which `has_text` is true
        data, languages: as for `prepare_text`
        split: the name of the split that was asked for
    Raises:
        ValueError: DATA or the languages are not those that the store was made with
    """
    if split != SPLIT:
        raise ValueError(
            f"--split is {split!r}, but the store {root!r} was made from text, which is its "
            f"split {SPLIT!r}: leave --split out, or name another folder"
        )
    folder = text_folder(root)
    task = open_task(single_folder(data, SPLIT), *languages)
    _check(folder, _made_from_data(task, data))
    remove_lock_of(folder)
    databin = os.path.join(folder, _DATABIN)
    return open_split(databin, SPLIT, task.cfg.source_lang, task.cfg.target_lang)


def text_summary(root):
    """Describe the text of a store, as lines to print."""
    report = read_json(os.path.join(text_folder(root), _REPORT))
    numbers, symbols = dict(report["lines"]), report["symbols"]
    lines = [f"{text_folder(root)}: {numbers.pop('kept')} lines to translate"]
    lines += [f"  {n} lines are left out: {why}" for why, n in sorted(numbers.items()) if n]
    for kind, name in (("unknown", "unknown"), ("bytes", "bytes of unknown characters")):
        if symbols[kind]:
            percent = 100 * symbols[kind] / symbols["all"]
            lines.append(f"  {symbols[kind]} subwords ({percent:.2f} %) are {name}")
    return lines


def _numbers(numbers):
    return ", ".join(f"{n} {reason}" for reason, n in numbers.items())
