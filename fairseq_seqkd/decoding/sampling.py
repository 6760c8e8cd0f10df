"""Sampling of tokens that depends on the sentence alone, never on its batch."""

import numpy as np
import torch
from fairseq.search import Sampling


class SeededSampling(Sampling):
    """fairseq's sampling, where a sentence's draws depend on the sentence alone.

    fairseq draws for a whole batch from torch's global generator: there a sample depends
    on its batch, and drawing shifts the student's dropout.

    Args:
        tgt_dict: the target dictionary
        options: `SearchOptions`
    """

    def __init__(self, tgt_dict, options):
        super().__init__(tgt_dict, options.sampling_topk, options.sampling_topp)
        self.seed = options.seed
        self.generators = []

    def seed_batch(self, ids, draw=0):
        """Begin a batch.

        Args:
            ids: (batch,) sentence ids, in the order of the batch's rows
            draw: another number draws other samples of the same sentences
        """
        self.generators = [random_stream(self.seed, draw, id_) for id_ in ids.tolist()]

    def step(self, step, lprobs, scores, prev_output_tokens=None, original_batch_idxs=None):
        """One more token for every row; arguments and results are those of fairseq's."""
        batch, beam, _ = lprobs.size()
        probs, symbols = self._candidates(lprobs)  # both (batch, beam, candidates)
        rows = original_batch_idxs.tolist()
        uniform = np.stack([self.generators[row].random(beam) for row in rows])
        tokens = draw_tokens(probs, symbols, torch.from_numpy(uniform))
        token_scores = lprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        beams = torch.arange(beam, device=tokens.device).expand(batch, beam)
        if step == 0:
            return token_scores, tokens, torch.zeros_like(beams)
        return token_scores + scores[:, :, step - 1], tokens, beams

    def _candidates(self, lprobs):
        """The probabilities of the symbols to draw among, and these symbols."""
        lprobs = lprobs.log_softmax(-1)  # at the longest length all is forbidden but EOS
        if self.sampling_topp > 0:
            return nucleus(*top_candidates(lprobs, -1), self.sampling_topp)
        return top_candidates(lprobs, self.sampling_topk)


def random_stream(seed, draw, id_, purpose=0):
    """numpy's generator of the random numbers of one sentence, whatever its batch.

    Args:
        seed: of the run
        draw: another number gives other random numbers for the same sentence
        id_: of the sentence
        purpose: keeps the draws of several users of one sentence apart
    """
    counter = [0, 0, 0, purpose]
    return np.random.Generator(
        np.random.Philox(counter=counter, key=[seed, (draw << 40 | id_) % 2**64])
    )


class SentenceStreams:
    """Uniform random numbers for the rows of a batch, each from its sentence's own streams.

    Args:
        ids: list of the rows' sentence ids
        seed, draw: as for `random_stream`
    """

    def __init__(self, ids, seed, draw):
        self._ids, self._seed, self._draw = ids, seed, draw
        self._streams = {}

    def uniform(self, purpose, rows):
        """Draw the next number of each given row's stream for a purpose, (n,), in [0, 1)."""
        if purpose not in self._streams:
            self._streams[purpose] = [
                random_stream(self._seed, self._draw, id_, purpose) for id_ in self._ids
            ]
        streams = self._streams[purpose]
        return torch.tensor([streams[row].random() for row in rows], dtype=torch.float64)


def most_probable(lprobs):
    """(n,) the most probable symbol of each row, the first of equals.

    On CPUs numpy finds it in an eighth of torch's time.

    Args:
        lprobs: (n, vocab), without gradient
    """
    if lprobs.device.type != "cpu":
        return lprobs.max(-1).indices
    return torch.from_numpy(lprobs.numpy().argmax(-1))


def top_candidates(lprobs, topk):
    """Probabilities and symbols of the ``topk`` most probable ones (-1: all), both (..., k)."""
    if topk > 0:
        top = lprobs.topk(min(topk, lprobs.size(-1)))
        return top.values.exp(), top.indices
    symbols = torch.arange(lprobs.size(-1), device=lprobs.device)
    return lprobs.exp(), symbols.expand_as(lprobs)


def nucleus(probs, symbols, topp):
    """The candidates in falling order, with a probability of 0 beyond the nucleus.

    The nucleus has the fewest symbols whose probabilities sum to ``topp`` of all or more.

    Args:
        probs, symbols: (..., candidates)
    Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration.
    """
    probs, order = probs.sort(dim=-1, descending=True)
    before = probs.cumsum(-1) - probs
    outside = before >= topp * probs.sum(-1, keepdim=True)
    outside[..., 0] = False
    return probs.masked_fill(outside, 0.0), symbols.gather(-1, order)


def draw_tokens(probs, symbols, uniform):
    """Draw one candidate a position, by inverting the cumulated probabilities.

    Args:
        probs, symbols: (..., candidates); the probabilities need not add up to 1
        uniform: (...) from 0 to below 1
    Returns:
        (...) symbols
    """
    mass = probs.cumsum(dim=-1)
    total = mass[..., -1:].contiguous()
    index = torch.searchsorted(mass, uniform.to(mass).unsqueeze(-1) * total, right=True)
    # Rounding may put the point on the very end of the mass: then the last with any is it.
    last = torch.searchsorted(mass, total)
    return symbols.gather(-1, torch.minimum(index, last)).squeeze(-1)
