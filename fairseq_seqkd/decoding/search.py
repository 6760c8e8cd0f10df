"""How the teacher's hypotheses are searched for, or sampled."""

from dataclasses import dataclass


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
