"""Encodes imported text as token ids."""

import logging

import numpy as np

from fairseq_seqkd.decoding.text import WORD_MARK, decode_byte_pieces, load_sentencepiece

logger = logging.getLogger(__name__)

# A larger fraction of unknown symbols means that the subwords are probably the wrong ones.
_MAX_UNKNOWN_FRACTION = 0.001


class TextEncoder:
    """Encodes text as token ids, and counts the symbols that the dictionary lacks.

    Args:
        dictionary: the target dictionary
        spm_model: a sentencepiece model; None if the text is already cut into subwords
    """

    def __init__(self, dictionary, spm_model=None):
        self.dictionary = dictionary
        self.pieces = spm_model and load_sentencepiece(spm_model)
        self.has_bytes = self.pieces is not None and _has_byte_fallback(self.pieces)
        # Text that looks like a control symbol is an unknown word.
        self.control = {dictionary.bos(), dictionary.pad(), dictionary.eos()}
        self.tokens = self.unknown = 0

    def __call__(self, text):
        """(length,) token ids of a text, with EOS."""
        if self.pieces is not None and WORD_MARK not in text:
            # fairseq-generate prints the model's byte pieces into detokenised text.
            text = decode_byte_pieces(text) if self.has_bytes else text
            symbols = self.pieces.encode(text, out_type=str)
        else:
            symbols = text.split()
        unknown = self.dictionary.unk()
        ids = [self.dictionary.index(symbol) for symbol in symbols]
        ids = [unknown if id_ in self.control else id_ for id_ in ids]
        self.tokens += len(ids)
        self.unknown += ids.count(unknown)
        return np.array([*ids, self.dictionary.eos()], dtype=np.int32)

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


def _has_byte_fallback(pieces):
    byte = pieces.piece_to_id("<0x41>")
    return byte != pieces.unk_id() and pieces.is_byte(byte)
