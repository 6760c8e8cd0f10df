"""Encodes text as token ids."""

import logging

import numpy as np

from fairseq_seqkd.decoding.text import (
    WORD_MARK,
    byte_piece_ids,
    decode_byte_pieces,
    load_sentencepiece,
)

logger = logging.getLogger(__name__)

# A larger fraction of unknown symbols means that the subwords are probably the wrong ones.
_MAX_UNKNOWN_FRACTION = 0.001
_EXAMPLES = 3


class TextEncoder:
    """Encodes text as token ids, and counts the symbols that the dictionary lacks.

    Args:
        dictionary: of the token ids
        cut: a function from a text to its symbols; by default text is cut at spaces alone
    Attributes:
        tokens, unknown: how many symbols there were, and how many of them were unknown
        in_bytes: how many were sentencepiece's bytes of characters that it has no piece for
        examples: the first different unknown symbols
    """

    def __init__(self, dictionary, cut=str.split):
        self.cut = cut
        self._unknown, self._eos = dictionary.unk(), dictionary.eos()
        # Text that looks like a control symbol is an unknown word.
        control = {dictionary.bos(), dictionary.pad(), dictionary.eos()}
        self._ids = {
            symbol: self._unknown if id_ in control else id_
            for symbol, id_ in dictionary.indices.items()
        }
        self._byte_ids = byte_piece_ids(dictionary)
        self.tokens = self.unknown = self.in_bytes = 0
        self.examples = []

    def __call__(self, text):
        """(length,) token ids of a text, with EOS."""
        symbols, unknown = self.cut(text), self._unknown
        ids = [self._ids.get(symbol, unknown) for symbol in symbols]
        n_unknown = ids.count(unknown)
        self.tokens += len(ids)
        self.unknown += n_unknown
        if self._byte_ids:
            self.in_bytes += sum(id_ in self._byte_ids for id_ in ids)
        if n_unknown and len(self.examples) < _EXAMPLES:
            self._note_examples(symbols, ids)
        return np.array([*ids, self._eos], dtype=np.int32)

    def _note_examples(self, symbols, ids):
        for symbol, id_ in zip(symbols, ids):
            if id_ == self._unknown and symbol not in self.examples:
                self.examples.append(symbol)
        del self.examples[_EXAMPLES:]

    @property
    def unfamiliar_fraction(self):
        """The fraction of symbols that are unknown, or bytes of unknown characters."""
        return (self.unknown + self.in_bytes) / max(self.tokens, 1)

    def report(self):
        """Log how many symbols were unknown; a warning if there were too many."""
        fraction = self.unknown / max(self.tokens, 1)
        suspicious = fraction > _MAX_UNKNOWN_FRACTION
        logger.log(
            logging.WARNING if suspicious else logging.INFO,
            "%d of %d symbols (%.2f %%) are not in the dictionary and became unknown%s",
            self.unknown,
            self.tokens,
            100 * fraction,
            ": is the text cut into the student's subwords? (--spm-model)"
            if suspicious
            else "",
        )


def cut_translations(spm_model):
    """A function that cuts translations of another program, unless they are cut already.

    Args:
        spm_model: path of a sentencepiece model; None if they are
    """
    if not spm_model:
        return str.split
    pieces = load_sentencepiece(spm_model)
    has_bytes = _has_byte_fallback(pieces)

    def cut(text):
        if WORD_MARK in text:
            return text.split()
        # fairseq-generate prints the model's byte pieces into detokenised text.
        text = decode_byte_pieces(text) if has_bytes else text
        return pieces.encode(text, out_type=str)

    return cut


def _has_byte_fallback(pieces):
    byte = pieces.piece_to_id("<0x41>")
    return byte != pieces.unk_id() and pieces.is_byte(byte)
