"""Models that write targets token by token, all rows of a batch at once.

Smaller than a beam search and open in one place, the choice of the next token: there two
models can take part. Every row is written as if it were alone, so that neither its batch nor
its place in it matters. No gradient, and no draw from torch's random generator.
"""

import contextlib
import inspect
import math

import torch
from fairseq.models import FairseqIncrementalDecoder
from fairseq.sequence_generator import EnsembleModel


def can_write(model):
    """Whether a model reads a source and writes a target token by token."""
    decoder = getattr(model, "decoder", None)
    if not (hasattr(model, "encoder") and isinstance(decoder, FairseqIncrementalDecoder)):
        return False
    # Non-autoregressive decoders are of that class as well.
    return "incremental_state" in inspect.signature(decoder.forward).parameters


@contextlib.contextmanager
def eval_mode(model):
    """Dropout is off inside; every part of the model is as before afterwards."""
    were_training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in were_training:
            part.training = True


class Writer:
    """A model, or the mean of several, in the middle of a batch.

    Args:
        models: fairseq encoder-decoders, in eval mode
        net_input: the sources, as fairseq collates them
        dictionary: of the targets
        encoded: what each model's encoder returned for them, where that is known already
    """

    def __init__(self, models, net_input, dictionary, encoded=(None,)):
        self._model = EnsembleModel(models)
        if any(one is None for one in encoded):
            encoded = self._model.forward_encoder(net_input)
        self._encoded = encoded
        self._states = [{} for _ in models]
        self._pad = dictionary.pad()

    def lprobs(self, prefixes):
        """(rows, vocab) float32 log-probabilities of what follows (rows, length) prefixes.

        Each call takes the prefixes of the last one, one token longer.
        """
        lprobs, _ = self._model.forward_decoder(prefixes, self._encoded, self._states)
        lprobs = lprobs.float()
        lprobs[:, self._pad] = -math.inf
        return lprobs

    def keep(self, rows):
        """Go on with these rows only."""
        self._encoded = self._model.reorder_encoder_out(self._encoded, rows)
        self._model.reorder_incremental_state(self._states, rows)


@torch.no_grad()
def roll_out(writers, choose, limits, dictionary):
    """Write a target for every row of a batch.

    Args:
        writers: one or several :class:`Writer` of the same batch
        choose: called with the numbers of the rows that are not finished, (rows,), and every
            writer's log-probabilities for them; returns their next tokens, (rows,)
        limits: (batch,) the most tokens, with EOS, that each row may have, 1 or more
        dictionary: of the targets
    Returns:
        (batch, longest + 1) the tokens after an EOS in front, as fairseq's
        ``prev_output_tokens`` begin, then padding
    """
    pad, eos = dictionary.pad(), dictionary.eos()
    tokens = limits.new_full((len(limits), int(limits.max()) + 1), pad)
    tokens[:, 0] = eos
    rows = torch.arange(len(limits), device=limits.device)
    length = 1
    while len(rows):
        prefixes = tokens[rows, :length]
        following = choose(rows, *(writer.lprobs(prefixes) for writer in writers))
        tokens[rows, length] = following
        go_on = (following != eos) & (limits[rows] > length)
        if not go_on.all():
            places = go_on.nonzero().flatten()
            rows = rows[places]
            for writer in writers if len(rows) else ():
                writer.keep(places)
        length += 1
    return tokens[:, :length]
