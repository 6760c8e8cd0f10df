"""Turns token ids into plain text: joins subwords, undoes tokenisation."""

import numpy as np
from fairseq.data import data_utils
from fairseq.data.encoders.moses_tokenizer import MosesTokenizer, MosesTokenizerConfig

_UNKNOWN_IN_REFERENCE = "UNKNOWNTOKENINREF"  # as fairseq-generate prints it


class Detokeniser:
    """Turns token ids into plain text.

    Args:
        dictionary: the dictionary of the token ids
        remove_bpe: the kind of subwords to join, as in fairseq's --remove-bpe; None: none
        moses_lang: the language of the Moses tokenisation to undo; None: no tokenisation
    Raises:
        ValueError: fairseq has no such ``remove_bpe``, or sacremoses is not installed
    """

    def __init__(self, dictionary, remove_bpe=None, moses_lang=None):
        self._symbols = np.array(dictionary.symbols, dtype=object)
        self._unknown = dictionary.unk_word
        self._remove_bpe = remove_bpe
        _check_remove_bpe(remove_bpe)
        self._moses = moses_lang and _moses_tokenizer(moses_lang)

    def text(self, tokens):
        """The plain text of a sentence; ``tokens`` are (length,) ids that end in EOS."""
        text = data_utils.post_process(" ".join(self._symbols[tokens[:-1]]), self._remove_bpe)
        return self._moses.decode(text) if self._moses else text

    def reference(self, tokens):
        """The plain text of a reference, in which unknown words match no hypothesis."""
        return self.text(tokens).replace(self._unknown, _UNKNOWN_IN_REFERENCE)


def _check_remove_bpe(remove_bpe):
    try:
        data_utils.post_process("", remove_bpe)
    except NotImplementedError as error:
        raise ValueError(
            f"--remove-bpe is {remove_bpe!r}, expected one of fairseq's: sentencepiece, "
            "subword_nmt, '@@ ', wordpiece, letter, _EOW or none"
        ) from error


def _moses_tokenizer(lang):
    try:
        return MosesTokenizer(MosesTokenizerConfig(source_lang=lang, target_lang=lang))
    except ImportError as error:
        raise ValueError("undoing Moses tokenisation needs: pip install sacremoses") from error
