"""Cuts plain text into subwords with fairseq's tokenisers and encoders."""

import os
from argparse import Namespace
from dataclasses import dataclass
from typing import Optional

from fairseq.data import encoders

from fairseq_seqkd.decoding.text import load_sentencepiece
from fairseq_seqkd.io.files import sha256

# {a name of fairseq's --bpe: the flag, as an attribute, that names its model}
MODEL_OF = {
    "sentencepiece": "sentencepiece_model",
    "subword_nmt": "bpe_codes",
    "fastbpe": "bpe_codes",
}
TOKENIZERS = ("moses", "nltk", "space")
_PACKAGES = "subword_nmt: subword-nmt, fastbpe: fastBPE, moses: sacremoses, nltk: nltk"


@dataclass(frozen=True)
class Subwords:
    """How plain text is cut: by a tokeniser, and its tokens by a subword model.

    Attributes:
        bpe: a name in ``MODEL_OF``; None: tokens stay whole
        model: the path of its model
        tokenizer: a name in ``TOKENIZERS``; None: text is cut at spaces
        flag: the flag that names the model, for messages
    Raises:
        FileNotFoundError: there is no such model
    """

    bpe: Optional[str] = None
    model: Optional[str] = None
    tokenizer: Optional[str] = None
    flag: str = "--spm-model"

    def __post_init__(self):
        if self.model is not None and not os.path.isfile(self.model):
            raise FileNotFoundError(f"{self.flag}: there is no file {self.model!r}")

    def describe(self):
        """How text is cut, as entries of a manifest, in which None would stand for anything."""
        model = sha256(self.model) if self.model else None
        steps = {"tokenizer": self.tokenizer, "bpe": self.bpe, "model": model}
        return {step: name or "none" for step, name in steps.items()}

    def cut_in(self, lang):
        """A function that cuts a text of this language into symbols, as fairseq does.

        Raises:
            ValueError: the model cannot be read, or a package is not installed
        """
        if self.bpe == "sentencepiece":
            load_sentencepiece(self.model, self.flag)  # says what is wrong with the file
        steps = [step.encode for step in self._encoders(lang) if step is not None]

        def cut(text):
            for step in steps:
                text = step(text)
            return text.split()

        return cut

    def _encoders(self, lang):
        languages = {"source_lang": lang, "target_lang": lang}
        model = {MODEL_OF[self.bpe]: self.model} if self.bpe else {}
        settings = Namespace(bpe=self.bpe, tokenizer=self.tokenizer, **languages, **model)
        try:
            return encoders.build_tokenizer(settings), encoders.build_bpe(settings)
        except ImportError as error:
            raise ValueError(f"{error}. (pip install, for {_PACKAGES})") from error
        except SystemExit as error:  # subword_nmt, which has printed its reason
            raise ValueError(
                f"{self.flag}: {self.model!r} cannot be read by {self.bpe}: expected the file "
                "of codes that it learned"
            ) from error
