"""A translation model in CTranslate2's format that has subwords of its own."""

import json
import logging
import os
from dataclasses import dataclass
from typing import Optional, Tuple

from fairseq_seqkd.decoding.text import load_sentencepiece
from fairseq_seqkd.io.files import read_json, sha256

logger = logging.getLogger(__name__)

MAX_POSITIONS = 512  # Marian's, and so those of OPUS-MT; other models have more
_CONVERT = "CTranslate2's own converters make it, such as ct2-transformers-converter"


@dataclass(frozen=True)
class ExternalModel:
    """A converted model, its sentencepiece models, and the tokens that it wants beside text.

    Attributes:
        folder: the model, with ``model.bin`` and its vocabularies
        source_spm: path of the sentencepiece model that cuts the source
        target_spm: path of the one that decodes translations; None: the same
        source_prefix, source_suffix: tokens before and after the source, such as </s>
        target_prefix: tokens that every translation begins with, such as a language token
    Raises:
        FileNotFoundError: the folder has no model, or a sentencepiece model does not exist
        ValueError: a token is not in the model's vocabulary
    """

    folder: str
    source_spm: str
    target_spm: Optional[str] = None
    source_prefix: Tuple[str, ...] = ()
    source_suffix: Tuple[str, ...] = ()
    target_prefix: Tuple[str, ...] = ()

    def __post_init__(self):
        if not os.path.isfile(os.path.join(self.folder, "model.bin")):
            raise FileNotFoundError(
                f"--teacher-ct2: {self.folder!r} has no model.bin: expected the folder of a "
                f"model in CTranslate2's format ({_CONVERT})"
            )
        self.load_subwords()
        for side, flag, tokens in (
            ("source", "--teacher-source-prefix", self.source_prefix),
            ("source", "--teacher-source-suffix", self.source_suffix),
            ("target", "--teacher-target-prefix", self.target_prefix),
        ):
            self._check_tokens(side, flag, tokens)

    def _check_tokens(self, side, flag, tokens):
        vocabulary = self.vocabulary(side) if tokens else ()
        for token in tokens:
            if token not in vocabulary:
                raise ValueError(
                    f"{flag}: {token!r} is not in the {side} vocabulary of {self.folder!r} "
                    f"({len(vocabulary)} tokens), which would make it unknown. Expected tokens "
                    "as they stand there, separated by spaces."
                )

    def load_subwords(self):
        """The sentencepiece models of source and target."""
        paths = self.source_spm, self.target_spm or self.source_spm
        return tuple(load_sentencepiece(path, "--teacher-spm") for path in paths)

    def vocabulary(self, side):
        """The tokens of ``source`` or ``target``, a set.

        Raises:
            FileNotFoundError: the folder has no such file
        """
        for name in (f"{side}_vocabulary", "shared_vocabulary"):
            for suffix in (".json", ".txt"):
                path = os.path.join(self.folder, name + suffix)
                if os.path.isfile(path):
                    return _tokens_in(path)
        raise FileNotFoundError(
            f"--teacher-ct2: {self.folder!r} has neither {side}_vocabulary nor "
            f"shared_vocabulary (.json or .txt): expected a translation model ({_CONVERT})"
        )

    @property
    def eos(self):
        """The token that ends a translation."""
        return self._config.get("eos_token", "</s>")

    @property
    def max_positions(self):
        """The longest source and target that it takes, in tokens with EOS.

        Models of ``fairseq-seqkd export`` say it; others are taken to have ``MAX_POSITIONS``.
        """
        limits = self._json("export.json").get("limits")
        return min(limits["source"], limits["target"]) + 1 if limits else MAX_POSITIONS

    @property
    def _config(self):
        return self._json("config.json")

    def _json(self, name):
        path = os.path.join(self.folder, name)
        return read_json(path) if os.path.isfile(path) else {}

    def check_source_end(self):
        """Warn if sources get the end token twice, or never."""
        adds, given = bool(self._config.get("add_source_eos")), self.eos in self.source_suffix
        if adds == given:
            logger.warning(
                "the source gets %r %s: config.json in %r says add_source_eos %s, and "
                "--teacher-source-suffix is %r. Models of fairseq and Marian add it, and most "
                "that were converted from transformers want it as the suffix.",
                self.eos,
                "twice" if adds else "at no place",
                self.folder,
                str(adds).lower(),
                " ".join(self.source_suffix),
            )

    def checksums(self):
        """The SHA-256 of the files that decide the translations, in a fixed order."""
        names = [name for name in sorted(os.listdir(self.folder)) if _matters(name)]
        paths = [os.path.join(self.folder, name) for name in names]
        return [*map(sha256, [*paths, self.source_spm, self.target_spm or self.source_spm])]

    def settings(self):
        """The tokens beside the text, as entries of a manifest."""
        names = ("source_prefix", "source_suffix", "target_prefix")
        return {name: list(getattr(self, name)) for name in names}


def _matters(name):
    return name in ("model.bin", "config.json") or "vocabulary" in name


def _tokens_in(path):
    with open(path, encoding="utf-8") as file:
        if path.endswith(".json"):
            return set(json.load(file))
        return {line.rstrip("\n") for line in file}
