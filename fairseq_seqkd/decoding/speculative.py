"""Speculative decoding: a small model drafts tokens, and a large one keeps or replaces them.

The large model, the target, looks at all drafted tokens in one run. Its own law is kept: the
greedy output is that of the target alone, and samples are drawn from its distribution exactly.

Source: Chen et al. 2023, Accelerating Large Language Model Decoding with Speculative Sampling
(arXiv 2302.01318), algorithm 2; the same method: Leviathan et al. 2023 (arXiv 2211.17192).
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from fairseq_seqkd.decoding.sampling import SentenceStreams, draw_tokens
from fairseq_seqkd.models.blocks import common_length

# Purposes of a sentence's random numbers; for others see ``token_rules.py``.
_DRAFT, _ACCEPT, _REPLACE = 4, 5, 6


@dataclass
class DraftCounts:
    """How many tokens were drafted and kept; of several sentences the sum.

    Attributes:
        rounds: runs of the target
        drafted: tokens that were drafted
        judged: those of them up to the first rejected one of their round
        accepted: those that the target kept
        tokens: of the targets, with their ends
    """

    rounds: int = 0
    drafted: int = 0
    judged: int = 0
    accepted: int = 0
    tokens: int = 0

    def __add__(self, other):
        return DraftCounts(*(a + b for a, b in zip(vars(self).values(), vars(other).values())))

    @property
    def acceptance_rate(self):
        """The fraction of judged tokens that were kept; of no tokens 0."""
        return self.accepted / max(self.judged, 1)

    @property
    def drafted_per_round(self):
        """The mean length of a draft."""
        return self.drafted / max(self.rounds, 1)

    @property
    def accepted_per_round(self):
        """Accepted tokens of a round's draft, a mean."""
        return self.accepted / max(self.rounds, 1)

    @property
    def block_efficiency(self):
        """Tokens of the targets for each run of the target model.

        Source: Zhou et al. 2023, DistillSpec (arXiv 2310.08461), section 3.
        """
        return self.tokens / max(self.rounds, 1)

    def expected_speedup(self, cost_ratio):
        """How many times faster than the target alone, if it looks at a draft in a step's time.

        Args:
            cost_ratio: time of a step of the draft model divided by one of the target's
        Source: Leviathan et al. 2023, theorem 3.8, with the measured mean number of tokens and
            of drafted tokens of a run in the place of their expectations.
        """
        return self.block_efficiency / (self.drafted_per_round * cost_ratio + 1)


@dataclass
class GreedyRule:
    """A drafted token is kept while it is the target's most probable one."""

    def of_sentence(self, id_):
        """The rule for one sentence."""
        return self

    def draft(self, lprobs):
        """Draft a token.

        Args:
            lprobs: (vocab,) the draft model's
        Returns:
            the token, and what `judge` wants to know about it
        """
        return lprobs.argmax(), None

    def judge(self, drafted, laws, lprobs):
        """Keep the first drafted tokens, and give the one after them.

        Args:
            drafted: (n,) tokens
            laws: what `draft` returned for each
            lprobs: (n + 1, vocab) the target's, before each of them and after the last
        Returns:
            how many are kept, and the next token
        """
        best = lprobs.argmax(-1)
        n_kept = _leading(best[:-1] == drafted)
        return n_kept, best[n_kept]


@dataclass
class SamplingRule:
    """Modified rejection sampling: the tokens that result have the target's law.

    A token x that the draft drew from q is kept with probability min(1, p(x) / q(x)); in the
    place of the first rejected one a token is drawn from norm(max(0, p - q)), and after the
    last kept one from p.

    Attributes:
        temperature: divides the logits of both models
        seed: of the samples
        streams: `SentenceStreams` of the sentence
    Source: Chen et al. 2023, algorithm 2 and theorem 1.
    """

    temperature: float = 1.0
    seed: int = 1
    streams: Any = None

    def of_sentence(self, id_):
        """The rule for one sentence, whose draws depend on its id alone."""
        return replace(self, streams=SentenceStreams([id_], self.seed, draw=0))

    def draft(self, lprobs):
        """As `GreedyRule.draft`; the law is (vocab,) probabilities."""
        law = self._law(lprobs)
        return self._drawn(law, _DRAFT), law

    def judge(self, drafted, laws, lprobs):
        """As `GreedyRule.judge`."""
        target = self._law(lprobs)
        n_kept = 0
        if laws:
            columns = drafted.unsqueeze(-1)
            p, q = (law.gather(-1, columns)[:, 0] for law in (target[:-1], torch.stack(laws)))
            coins = torch.cat([self._uniform(_ACCEPT) for _ in laws]).to(p)
            n_kept = _leading(coins * q < p)
        law = target[n_kept]
        if n_kept < len(laws):
            excess = (law - laws[n_kept]).clamp(min=0)
            law = excess if excess.sum() > 0 else law  # of equal laws, rounding rejects
        return n_kept, self._drawn(law, _REPLACE)

    def _law(self, lprobs):
        return (lprobs.double() / self.temperature).softmax(-1)

    def _uniform(self, purpose):
        return self.streams.uniform(purpose, [0])

    def _drawn(self, law, purpose):
        symbols = torch.arange(len(law), device=law.device)
        return draw_tokens(law, symbols, self._uniform(purpose)[0])


def _leading(kept_mask):
    """The number of entries before the first False."""
    return int(kept_mask.long().cumprod(0).sum())


class Limits(NamedTuple):
    """How far a sentence is generated.

    Attributes:
        draft_tokens: at most so many are drafted a round
        longest: tokens that the target may have; the end is put behind the last one
        longest_read: the longest prefix, with its first symbol, that the draft model reads
    """

    draft_tokens: int
    longest: int
    longest_read: int

    def n_drafts(self, length):
        """How many tokens to draft behind a prefix of this length."""
        left = self.longest - length  # the start is no token, and the target adds one
        return max(0, min(self.draft_tokens, left, self.longest_read - length + 1))


class Symbols(NamedTuple):
    """The symbols with a meaning of their own.

    Attributes:
        start: a prefix begins with it
        end: a target ends with it
        pad: is never generated
        may_be_empty: whether a target may be the end alone; fairseq's search generates no
            such target, unless it forces the first tokens
    """

    start: int
    end: int
    pad: int
    may_be_empty: bool = False

    def allowed(self, lprobs, position, name):
        """The log-probabilities without those of symbols that may not be generated.

        Args:
            lprobs: (n, vocab) at positions one after the other
            position: the first one, from 0
            name: of the model, for the error message
        Raises:
            ValueError: they are no numbers
        """
        if lprobs[:, self.end].isnan().any():
            raise ValueError(
                f"{name} has no probabilities (NaN) for token {position + 1}: did its training "
                "diverge? Take another checkpoint."
            )
        lprobs = lprobs.clone()
        lprobs[:, self.pad] = -torch.inf
        if position == 0 and not self.may_be_empty:
            lprobs[0, self.end] = -torch.inf
        return lprobs


@torch.no_grad()
def speculate(draft, target, rule, limits, symbols, device="cpu"):
    """Generate the target of one sentence.

    Args:
        draft: has ``next_lprobs(prefixes)``, (1, vocab) after a (1, length) prefix, as
            `RewindingScorer`
        target: called with a (1, length) prefix and n; gives the (n, vocab) log-probabilities
            of the tokens after the last n prefixes of it, the whole one included
        rule: `GreedyRule` or `SamplingRule`, of this sentence
        limits: `Limits`
        symbols: `Symbols`
    Returns:
        (length,) tokens that end in the end, and `DraftCounts`. If there are more than the
        longest, it was cut
    """
    prefix, counts = torch.tensor([[symbols.start]], device=device), DraftCounts()
    is_ended = False
    while not is_ended and prefix.size(1) <= limits.longest:
        length = prefix.size(1)
        n_drafts = limits.n_drafts(length)
        prefix, laws = _draft(draft, rule, prefix, n_drafts, symbols)
        drafted = prefix[0, length:]
        lprobs = symbols.allowed(target(prefix, len(laws) + 1), length - 1, "the teacher")
        n_kept, token = rule.judge(drafted, laws, lprobs)
        prefix = prefix[:, : length + n_kept]
        is_ended = bool(n_kept) and int(prefix[0, -1]) == symbols.end
        if not is_ended:
            prefix = torch.cat([prefix, token.view(1, 1)], dim=1)
            is_ended = int(token) == symbols.end
        judged = min(n_kept + 1, len(laws))
        counts += DraftCounts(1, len(laws), judged, n_kept, prefix.size(1) - length)
    if not is_ended:
        prefix = torch.cat([prefix, prefix.new_tensor([[symbols.end]])], dim=1)
    return prefix[0, 1:], counts


def _draft(draft, rule, prefix, n_drafts, symbols):
    """Append drafted tokens, up to an end, to a prefix; also what the rule knows of each."""
    laws = []
    while len(laws) < n_drafts and not (laws and int(prefix[0, -1]) == symbols.end):
        lprobs = draft.next_lprobs(prefix)
        token, law = rule.draft(symbols.allowed(lprobs, prefix.size(1) - 1, "the draft")[0])
        prefix = torch.cat([prefix, token.view(1, 1)], dim=1)
        laws.append(law)
    return prefix, laws


class RewindingScorer:
    """An `IncrementalScorer` of one sentence that takes any prefix.

    What it has read of a rejected draft is undone: it returns to its state of before. The
    states are copied, not cut, since models differ in what they keep (a convolution shifts its
    buffer in place).

    Args:
        scorer: `IncrementalScorer` of a batch of one
        n_states: how many of the last states are kept
    """

    def __init__(self, scorer, n_states):
        self._scorer = scorer
        self._states = deque(maxlen=n_states)  # (length, state before that token is read)
        self._prefix = None

    def next_lprobs(self, prefix):
        """(1, vocab) log-probabilities of the token after a (1, length) prefix.

        Raises:
            ValueError: no state is left that fits the prefix
        """
        n_same = self._n_same(prefix)
        while self._states and self._scorer.n_read > n_same:
            self._scorer.restore(self._states.pop())
        if self._scorer.n_read > n_same:
            raise ValueError(f"the prefix differs at token {n_same}, which is too far back")
        for length in range(self._scorer.n_read + 1, prefix.size(1) + 1):
            self._states.append(self._scorer.state())
            lprobs = self._scorer.next_lprobs(prefix[:, :length])
        self._prefix = prefix
        return lprobs

    def _n_same(self, prefix):
        """How many tokens of a prefix are as read before; its last one is always read anew."""
        return 0 if self._prefix is None else common_length(self._prefix[0], prefix[0, :-1])
