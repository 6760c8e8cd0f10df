"""Rollouts: models generate targets token by token, all rows of a batch at once.

Smaller than a beam search, and open where the next token is drawn: there two models can take
part. Every row is generated as if it were alone, whatever its batch and its position there. No
gradient, and no draw from torch's random generator.
"""

import inspect
import math

import torch
from fairseq.models import FairseqIncrementalDecoder
from fairseq.sequence_generator import EnsembleModel


def can_generate(model):
    """Whether a model reads a source and decodes a target token by token."""
    return hasattr(model, "encoder") and is_incremental(model)


def is_incremental(model):
    """Whether a model decodes token by token, with a source or without."""
    decoder = getattr(model, "decoder", None)
    if not isinstance(decoder, FairseqIncrementalDecoder):
        return False
    # Non-autoregressive decoders are of that class as well.
    return "incremental_state" in inspect.signature(decoder.forward).parameters


class IncrementalScorer:
    """A model's (or several models' mean) next-token log-probabilities for growing prefixes.

    Args:
        models: fairseq encoder-decoders or language models, in eval mode
        net_input: the sources, as fairseq collates them; prefixes are of all of its rows until
            `keep` is called. A batch is encoded as a whole, since an encoder's output may
            depend on the width of the batch (fairseq's for speech does)
        pad: the padding symbol of the targets
        encoded: each model's encoder output for them, where it is known already
        start: symbols that these models read in the place of a context's first one
        n_symbols: how many symbols are scored, the first ones; None: all
    Attributes:
        n_read: the tokens of the prefixes that were read
    """

    def __init__(self, models, net_input, pad, encoded=(None,), start=None, n_symbols=None):
        self._model = EnsembleModel(models)
        if any(one is None for one in encoded):
            encoded = self._model.forward_encoder(net_input)
        self._encoded = encoded
        self._states = [{} for _ in models]
        self._pad, self._start, self._n_symbols = pad, start, n_symbols
        self.n_read = 0

    def next_lprobs(self, prefixes):
        """(rows, vocab) float32 log-probabilities of the token after (rows, length) prefixes.

        Each call takes the prefixes of the last one, one or more tokens longer.
        """
        if self._start is not None:
            start = prefixes.new_tensor(self._start).expand(len(prefixes), -1)
            prefixes = torch.cat([start, prefixes[:, 1:]], dim=1)
        # The models read one token a call.
        for length in range(self.n_read + 1, prefixes.size(1) + 1):
            lprobs, _ = self._model.forward_decoder(
                prefixes[:, :length], self._encoded, self._states
            )
        self.n_read = prefixes.size(1)
        lprobs = lprobs[:, : self._n_symbols].float()
        lprobs[:, self._pad] = -math.inf
        if self._n_symbols is not None:
            lprobs = lprobs.log_softmax(-1)
        return lprobs

    def state(self):
        """A copy of the state after what was read, to `restore`."""
        return self.n_read, _copy(self._states)

    def restore(self, state):
        """Return to a `state` of before; it can be restored once."""
        self.n_read, self._states = state

    def keep(self, rows):
        """Go on with these rows only, (n,) indices among the present ones."""
        self._encoded = self._model.reorder_encoder_out(self._encoded, rows)
        self._model.reorder_incremental_state(self._states, rows)


def _copy(state):
    """A copy of a model's incremental state: its tensors, in whatever containers."""
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(map(_copy, state))
    return state


@torch.no_grad()
def roll_out(scorers, next_tokens, limits, starts, ends, pad):
    """Generate a target for every row of a batch.

    Args:
        scorers: one or several `IncrementalScorer` of the same batch
        next_tokens: called with the indices of the unfinished rows, (rows,), and every scorer's
            log-probabilities for them; returns their next tokens, (rows,)
        limits: (batch,) the most tokens, with the end, that each row may have, 1 or more
        starts: (batch, n) the given beginning of each context, such as EOS and a language token
        ends: (batch,) the symbol that ends each target, such as EOS
        pad: the padding symbol
    Returns:
        a list, (length,) targets for each row, with what is given after the first symbol; one
        that reached its limit may lack the end
    """
    n_given = starts.size(1)
    prefixes = limits.new_full((len(limits), int(limits.max()) + n_given), pad)
    prefixes[:, :n_given] = starts
    rows = torch.arange(len(limits), device=limits.device)
    length = n_given
    while len(rows):
        lprobs = [scorer.next_lprobs(prefixes[rows, :length]) for scorer in scorers]
        tokens = next_tokens(rows, *lprobs)
        prefixes[rows, length] = tokens
        unfinished = (tokens != ends[rows]) & (limits[rows] > length - n_given + 1)
        if not unfinished.all():
            kept = unfinished.nonzero().flatten()
            rows = rows[kept]
            for scorer in scorers if len(rows) else ():
                scorer.keep(kept)
        length += 1
    lengths = prefixes[:, 1:].ne(pad).sum(-1).tolist()
    return [row[1 : 1 + n] for row, n in zip(prefixes, lengths)]


def check_probabilities(lprobs, name, rows, ids, dictionary, update):
    """Refuse next-token log-probabilities that are no numbers.

    Args:
        lprobs: (n, vocab)
        name: of the model, ``student`` or ``teacher``
        rows: (n,) indices of the rows among ``ids``, the sentences that are generated
        update: of the training
    Raises:
        ValueError: names the sentence and the update
    """
    is_nan = lprobs[:, dictionary.eos()].isnan()  # as all of the row then
    if is_nan.any():
        id_ = ids[int(rows[is_nan][0])]
        raise ValueError(
            f"the {name} has no probabilities (NaN) for a next token, so that the prefix of "
            f"sentence {id_} has no token at update {update}. If its training diverged: "
            "lower --lr or set --clip-norm."
        )
