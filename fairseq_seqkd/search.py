"""How the teacher's hypotheses are searched for, or sampled."""

from dataclasses import dataclass

import numpy as np
import torch
from fairseq.search import Sampling


@dataclass(frozen=True)
class SearchOptions:
    """How hypotheses are found; the defaults are fairseq-generate's.

    Attributes:
        beam: hypotheses kept at each step, 1 is greedy decoding; or samples drawn
        nbest: hypotheses returned a sentence, at most ``beam``
        lenpen: exponent of the length in the normalised score, < 1 favours short ones
        max_len_a, max_len_b: at most a * (source tokens) + b target tokens
        sampling: draw from the teacher's distribution in place of a beam search
        sampling_topk: draw among the k most probable symbols; -1 is all of them
        sampling_topp: draw among the fewest symbols with this much probability together
            (Holtzman et al. 2020, section 3.1); -1 is all of them
        seed: of the samples
    Raises:
        ValueError: a value is out of its range
    """

    beam: int = 5
    nbest: int = 1
    lenpen: float = 1.0
    max_len_a: float = 0
    max_len_b: int = 200
    sampling: bool = False
    sampling_topk: int = -1
    sampling_topp: float = -1.0
    seed: int = 1

    def __str__(self):
        how = "samples" if self.sampling else "beam"
        return f"{how} {self.beam}, {self.nbest}-best"

    def longest(self, source_length, max_target_positions):
        """How many tokens, with EOS, a hypothesis may have before it is cut.

        Args:
            source_length: of the longest source in the batch, in tokens with EOS
            max_target_positions: what the model can take
        """
        most = int(self.max_len_a * source_length + self.max_len_b)
        return min(most, max_target_positions - 1)

    def __post_init__(self):
        if not 1 <= self.nbest <= self.beam:
            raise ValueError(
                f"the number of hypotheses kept is {self.nbest} (nbest), expected from 1 to "
                f"the beam, which is {self.beam}"
            )
        if not (self.max_len_a >= 0 and self.max_len_b >= 1):
            raise ValueError(
                f"the longest target is {self.max_len_a} * source length + {self.max_len_b} "
                "tokens (max-len-a, max-len-b), expected from 0 and from 1 upwards"
            )
        if self.sampling and self.nbest != self.beam:
            raise ValueError(
                f"nbest is {self.nbest} and the beam {self.beam}: of samples all are kept, the "
                "best of them would be none. Give beam alone."
            )
        if not self.sampling and (self.sampling_topk, self.sampling_topp) != (-1, -1):
            raise ValueError("sampling-topk and sampling-topp need sampling as well")
        if self.sampling_topk != -1 and self.sampling_topk < 1:
            raise ValueError(f"sampling-topk is {self.sampling_topk}, expected 1 or more")
        if self.sampling_topp != -1 and not 0 < self.sampling_topp <= 1:
            raise ValueError(f"sampling-topp is {self.sampling_topp}, expected above 0, to 1")
        if self.sampling_topk != -1 and self.sampling_topp != -1:
            raise ValueError("sampling-topk and sampling-topp are two ways: give one of them")


class SeededSampling(Sampling):
    """fairseq's sampling, where a sentence's draws depend on the sentence alone.

    fairseq draws for a whole batch from torch's global generator: there a sample depends
    on its batch, and drawing shifts the student's dropout.

    Args:
        tgt_dict: the target dictionary
        options: :class:`SearchOptions`
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
        tokens = pick(probs, symbols, torch.from_numpy(uniform))
        token_scores = lprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        beams = torch.arange(beam, device=tokens.device).expand(batch, beam)
        if step == 0:
            return token_scores, tokens, torch.zeros_like(beams)
        return token_scores + scores[:, :, step - 1], tokens, beams

    def _candidates(self, lprobs):
        """The probabilities of the symbols to draw among, and these symbols."""
        lprobs = lprobs.log_softmax(-1)  # at the longest length all is forbidden but EOS
        if self.sampling_topp > 0:
            return self._sample_topp(lprobs)
        return candidates(lprobs, self.sampling_topk)


def random_stream(seed, draw, id_, purpose=0):
    """numpy's generator of the random numbers of one sentence, whatever its batch.

    Args:
        seed: of the run
        draw: another number gives other random numbers for the same sentence
        id_: of the sentence
        purpose: keeps apart what several users of one sentence draw
    """
    counter = [0, 0, 0, purpose]
    return np.random.Generator(
        np.random.Philox(counter=counter, key=[seed, (draw << 40 | id_) % 2**64])
    )


def candidates(lprobs, topk):
    """(..., k) probabilities of the ``topk`` most probable symbols (-1: all), and these."""
    if topk > 0:
        top = lprobs.topk(min(topk, lprobs.size(-1)))
        return top.values.exp(), top.indices
    symbols = torch.arange(lprobs.size(-1), device=lprobs.device)
    return lprobs.exp(), symbols.expand_as(lprobs)


def pick(probs, symbols, uniform):
    """Draw one of the candidates in each place, by inverting the cumulated probabilities.

    Args:
        probs, symbols: (..., candidates); the probabilities need not add up to 1
        uniform: (...) from 0 to below 1
    Returns:
        (...) symbols
    """
    mass = probs.cumsum(dim=-1)
    drawn = uniform.to(mass).unsqueeze(-1) * mass[..., -1:]
    place = torch.searchsorted(mass, drawn, right=True)
    # Rounding may put the point on the very end of the mass: then the last with any is it.
    last = torch.searchsorted(mass, mass[..., -1:])
    return symbols.gather(-1, torch.minimum(place, last)).squeeze(-1)
