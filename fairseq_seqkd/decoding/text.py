"""Token ids as the text that a person would read."""

import numpy as np
from fairseq.data import data_utils
from fairseq.data.encoders.moses_tokenizer import MosesTokenizer, MosesTokenizerConfig

_UNKNOWN_IN_REFERENCE = "UNKNOWNTOKENINREF"  # fairseq's own word for it


class Detokeniser:
    """Joins subwords and undoes tokenisation.

    Args:
        dictionary: of the tokens
        remove_bpe: how the text was cut into subwords, as in fairseq's --remove-bpe
        moses_lang: the language whose Moses tokenisation is undone; None: not tokenised
    Raises:
        ValueError: a ``remove_bpe`` that fairseq does not know, or sacremoses is missing
    """

    def __init__(self, dictionary, remove_bpe=None, moses_lang=None):
        self._symbols = np.array(dictionary.symbols, dtype=object)
        self._unknown = dictionary.unk_word
        self._remove_bpe = remove_bpe
        _check(remove_bpe)
        self._moses = moses_lang and _moses(moses_lang)

    def text(self, tokens):
        """What a person would read; (length,) token ids end in EOS."""
        text = data_utils.post_process(" ".join(self._symbols[tokens[:-1]]), self._remove_bpe)
        return self._moses.decode(text) if self._moses else text

    def reference(self, tokens):
        """The text of a reference: an unknown word in both is no match."""
        return self.text(tokens).replace(self._unknown, _UNKNOWN_IN_REFERENCE)


def _check(remove_bpe):
    try:
        data_utils.post_process("", remove_bpe)
    except NotImplementedError as error:
        raise ValueError(
            f"--remove-bpe is {remove_bpe!r}, expected what fairseq knows: sentencepiece, "
            "subword_nmt, '@@ ', wordpiece, letter, _EOW or none"
        ) from error


def _moses(lang):
    try:
        return MosesTokenizer(MosesTokenizerConfig(source_lang=lang, target_lang=lang))
    except ImportError as error:
        raise ValueError("undoing Moses tokenisation needs: pip install sacremoses") from error
