"""Stores made by an external teacher: a model of any kind that CTranslate2 runs."""

import os
from dataclasses import dataclass
from typing import Optional

import torch

from fairseq_seqkd.decoding.external_engine import ExternalEngine
from fairseq_seqkd.decoding.external_model import ExternalModel
from fairseq_seqkd.io.files import read_json, write_json
from fairseq_seqkd.io.line_counts import where_they_part
from fairseq_seqkd.io.locks import make_folder_once, remove_lock_of
from fairseq_seqkd.io.text import TextFile
from fairseq_seqkd.models.ctranslate2 import EngineUnavailable
from fairseq_seqkd.models.stored_lines import StoredLines, storing_lines
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.pseudo.source_text import MOST_UNKNOWN, has_text, text_folder
from fairseq_seqkd.pseudo.subwords import Subwords
from fairseq_seqkd.pseudo.text_encoder import TextEncoder

_FOLDER, _REPORT = "source-text", "source.json"


@dataclass
class ExternalRecipe(Recipe):
    """The settings with which an external teacher makes a store.

    Attributes, in addition to those of `Recipe`:
        model: `ExternalModel`
        subwords: the student's `Subwords`, into which translations are cut
        accept_unknown: the largest fraction of the teacher's source subwords that it does not
            know
    """

    model: Optional[ExternalModel] = None
    subwords: Optional[Subwords] = None
    accept_unknown: float = MOST_UNKNOWN

    def __post_init__(self):
        if self.engine["name"] not in (None, "auto", "ctranslate2"):
            raise ValueError(
                f"--engine {self.engine['name']} with --teacher-ct2, which CTranslate2 runs: "
                "leave --engine out"
            )
        self._encoder = None
        described = {"subwords": self.subwords.describe(), **self.model.settings()}
        self.engine = {**self.engine, "name": ExternalEngine.name, **described}

    @property
    def has_teacher(self):
        """Whether there is a teacher that can translate."""
        return True

    def fits(self, manifest):
        """Whether this teacher can go on with a store of this manifest."""
        return "import" not in manifest

    def teacher_sha256(self):
        """The SHA-256 of the files of the model, and of its sentencepiece models."""
        return self.model.checksums()

    def resolve_engine(self, store, split, search):
        """The manifest's entry ``engine`` of a new store.

        Raises:
            ValueError: CTranslate2 cannot be used, or the teacher does not know the text's
                subwords, or the student those of some translations
        """
        device = torch.device(self.device)
        try:
            resolved = ExternalEngine.resolve_settings(self.model, search, device, self.engine)
        except EngineUnavailable as error:
            raise ValueError(f"--teacher-ct2: {error}") from error
        resolved = self.with_fastest(resolved, self.engine, store, split, search)
        engine = self.build_engine(store, split, resolved, search)
        engine.check_sources(range(len(split)), self.accept_unknown)
        engine.try_some(range(len(split)))
        self._check_translations(engine.encode)
        return {**resolved, "subwords": self.subwords.describe()}

    def _check_translations(self, encoder):
        fraction = encoder.unfamiliar_fraction
        if fraction > self.accept_unknown:
            raise ValueError(
                f"--teacher-ct2: {100 * fraction:.1f} % of the subwords of some translations "
                f"are unknown to the student, such as {''.join(encoder.examples[:1])!r}; "
                f"expected at most {100 * self.accept_unknown:g} %. Are they in another "
                "language (--teacher-target-prefix), or cut into other subwords than the "
                "student's (--spm-model or --bpe, --tokenizer)? --accept-unknown "
                f"{fraction + 0.005:.2f} takes them."
            )

    def report(self):
        """Log how many of the translations' subwords the student does not know."""
        if self._encoder:
            self._encoder.report()

    def build_engine(self, store, split, settings, search):
        """The engine of a manifest's entry."""
        cut = self.subwords.cut_in(split.target_lang)
        self._encoder = TextEncoder(split.dataset.tgt_dict, cut)
        lines, device = open_lines(store.root), torch.device(self.device)
        how = settings, device, self.threads, lines, self._encoder, store.root
        return ExternalEngine.build(self.model, search, *how)


def prepare_source_lines(root, path, split):
    """Store the source text of a split, unless it is there; other processes wait.

    Args:
        root: the store's folder
        path: of the text, as for `read_lines`: the line of every sentence
        split: `PairSplit`
    Raises:
        ValueError: it has more or fewer lines than the split, or other text was stored
    """
    file, folder = TextFile(path), os.path.join(root, _FOLDER)
    made_from = {"sha256": file.sha256()}
    os.makedirs(root, exist_ok=True)
    if not os.path.exists(folder) and os.path.exists(os.path.join(root, "manifest.json")):
        raise ValueError(
            f"--source-text: the store {root!r} was made without source text. Name another "
            "folder (--pseudo-targets)."
        )

    def make(new):
        with storing_lines(new) as add:
            lengths = [add(line) or len(line) for _, line, _ in file.lines()]
        check_line_count(file.name, lengths, split)
        write_json(os.path.join(new, _REPORT), made_from)

    make_folder_once(folder, make)
    found = read_json(os.path.join(folder, _REPORT))
    if found != made_from:
        raise ValueError(
            f"--source-text: the store {root!r} was made from other text than {file.name!r}. "
            "Leave --source-text out to go on with it, or name another folder "
            "(--pseudo-targets)."
        )


def check_line_count(name, lengths, split):
    """Refuse text that does not have a line for every sentence of a split.

    Args:
        name: of the text
        lengths: of its lines, in characters
        split: `PairSplit`
    Raises:
        ValueError: names both counts, and the likely line where they part
    """
    if len(lengths) != len(split):
        raise ValueError(
            f"--source-text: {name!r} has {len(lengths)} lines, expected {len(split)}: one for "
            f"each sentence of {split.name!r} in {split.folder!r}."
            f"{where_they_part(lengths, split.dataset.src_sizes)} Give the text that was "
            "binarised, before it was cut."
        )


def has_source_lines(root):
    """Whether the store has the text of its sources."""
    return has_text(root) or os.path.exists(os.path.join(root, _FOLDER))


def open_lines(root):
    """The `StoredLines` of a store's sources."""
    if has_text(root):
        return StoredLines(text_folder(root))
    folder = os.path.join(root, _FOLDER)
    remove_lock_of(folder)
    return StoredLines(folder)
