"""Turns token ids into plain text: joins subwords, decodes byte pieces, undoes tokenisation."""

import codecs
import itertools
import os
import re

import numpy as np
import sentencepiece
from fairseq.data import data_utils
from fairseq.data.encoders.moses_tokenizer import MosesTokenizer, MosesTokenizerConfig

WORD_MARK = "\N{LOWER ONE EIGHTH BLOCK}"  # sentencepiece puts it at a word's beginning
_UNKNOWN_IN_REFERENCE = "UNKNOWNTOKENINREF"  # as fairseq-generate prints it
# sentencepiece's pieces for the bytes of characters that it has no piece for (byte fallback).
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_FIRST_BYTE = 0xDC00  # the first of 256 stand-ins for bytes, which UTF-8 text cannot contain


class Detokeniser:
    """Turns token ids into plain text.

    Byte pieces of sentencepiece (``<0xC3> <0xA9>``) become the characters that they encode,
    and U+FFFD where they encode none. Apart from these, text is that of fairseq.

    Args:
        dictionary: the dictionary of the token ids
        remove_bpe: the kind of subwords to join, as in fairseq's --remove-bpe; None: none
        moses_lang: the language of the Moses tokenisation to undo; None: no tokenisation
        spm_model: path of a sentencepiece model that decodes the subwords
    Raises:
        FileNotFoundError: there is no such model
        ValueError: fairseq has no such ``remove_bpe``, it does not go with ``spm_model``, or
            sacremoses is not installed
    """

    def __init__(self, dictionary, remove_bpe=None, moses_lang=None, spm_model=None):
        _check_remove_bpe(remove_bpe, spm_model)
        self._unknown = dictionary.unk_word
        self._remove_bpe = remove_bpe
        self._pieces = spm_model and load_sentencepiece(spm_model)
        symbols = dictionary.symbols
        if self._pieces:
            symbols = [self._as_pieces(symbol) for symbol in symbols]
        elif remove_bpe == "sentencepiece":
            symbols = [_with_bytes(symbol) for symbol in symbols]
        self._symbols = np.empty(len(symbols), dtype=object)
        self._symbols[:] = symbols
        self._moses = moses_lang and _moses_tokenizer(moses_lang)

    def text(self, tokens):
        """The plain text of a sentence; ``tokens`` are (length,) ids that end in EOS."""
        text = self._join(self._symbols[tokens[:-1]])
        return self._moses.decode(text) if self._moses else text

    def reference(self, tokens):
        """The plain text of a reference, in which unknown words match no hypothesis."""
        return self.text(tokens).replace(self._unknown, _UNKNOWN_IN_REFERENCE)

    def _join(self, symbols):
        if self._pieces:
            return self._pieces.decode(list(itertools.chain(*symbols))).strip(" ")
        return _decode_bytes(data_utils.post_process(" ".join(symbols), self._remove_bpe))

    def _as_pieces(self, symbol):
        """A symbol as pieces for the model, which prints unknown ones as they are."""
        if symbol == self._unknown:
            return symbol[:1], symbol[1:]  # as a whole it would print its sign for it
        is_known = self._pieces.piece_to_id(symbol) != self._pieces.unk_id()
        return (symbol if is_known else symbol.replace(WORD_MARK, " "),)


def has_byte_pieces(dictionary):
    """Whether a dictionary has byte pieces, which fairseq prints as they are."""
    return bool(byte_piece_ids(dictionary))


def byte_piece_ids(dictionary):
    """The ids of a dictionary's byte pieces."""
    symbols = dictionary.symbols
    return frozenset(id_ for id_, one in enumerate(symbols) if _BYTE_PIECE.fullmatch(one))


def decode_byte_pieces(text):
    """A text whose byte pieces, as fairseq-generate prints them, are decoded."""
    return _decode_bytes(_BYTE_PIECE.sub(_stand_in, text))


def _with_bytes(symbol):
    match = _BYTE_PIECE.fullmatch(symbol)
    return _stand_in(match) if match else symbol


def _stand_in(match):
    return chr(_FIRST_BYTE + int(match[1], 16))


def _decode_bytes(text):
    """Decode stand-ins for bytes as sentencepiece does: each wrong byte becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "seqkd-bytes").decode("utf-8", "seqkd-each-byte")
    return text


codecs.register_error(
    "seqkd-bytes",
    lambda error: (
        bytes(ord(byte) - _FIRST_BYTE for byte in error.object[error.start : error.end]),
        error.end,
    ),
)
codecs.register_error("seqkd-each-byte", lambda error: ("\ufffd", error.start + 1))


def load_sentencepiece(path, flag="--spm-model"):
    """Load a sentencepiece model.

    Args:
        path: of the model
        flag: the flag that names it, for messages
    Raises:
        FileNotFoundError: there is no such file
        ValueError: it is no such model
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{flag}: there is no file {path!r}")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=path)
    except RuntimeError as error:
        raise ValueError(
            f"{flag}: {path!r} is not a sentencepiece model (expected a .model file)"
        ) from error


def _check_remove_bpe(remove_bpe, spm_model):
    try:
        data_utils.post_process("", remove_bpe)
    except NotImplementedError as error:
        raise ValueError(
            f"--remove-bpe is {remove_bpe!r}, expected one of fairseq's: sentencepiece, "
            "subword_nmt, '@@ ', wordpiece, letter, _EOW or none"
        ) from error
    if spm_model and remove_bpe not in (None, "sentencepiece"):
        raise ValueError(
            f"--remove-bpe is {remove_bpe!r}, expected sentencepiece with --spm-model. Leave "
            "one of them out."
        )


def _moses_tokenizer(lang):
    try:
        return MosesTokenizer(MosesTokenizerConfig(source_lang=lang, target_lang=lang))
    except ImportError as error:
        raise ValueError("undoing Moses tokenisation needs: pip install sacremoses") from error
