"""Speculative decoding with models that are tables: output and law are the target's own."""

import functools
import itertools

import pytest
import torch
from conftest import LSTM, TINY, train
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import deviation

from fairseq_seqkd.decoding.rollout import IncrementalScorer
from fairseq_seqkd.decoding.speculative import (
    DraftCounts,
    GreedyRule,
    Limits,
    RewindingScorer,
    SamplingRule,
    Symbols,
    speculate,
)
from fairseq_seqkd.models.loading import load_models

PAD, EOS, VOCAB = 1, 2, 6
SYMBOLS = Symbols(EOS, EOS, PAD)


class Table:
    """Random log-probabilities for every prefix; another seed is another model."""

    def __init__(self, seed, spread=1.0):
        self._seed, self._spread = seed, spread
        self._lprobs = functools.lru_cache(maxsize=None)(self._drawn)

    def _drawn(self, prefix):
        generator = torch.Generator().manual_seed(hash((self._seed, *prefix)) % 2**31)
        logits = self._spread * torch.randn(VOCAB, generator=generator, dtype=torch.float64)
        return logits.log_softmax(-1)

    def next_lprobs(self, prefix):
        return self._lprobs(tuple(prefix[0].tolist())).unsqueeze(0)

    def __call__(self, prefix, n):
        length = prefix.size(1)
        return torch.cat(
            [self.next_lprobs(prefix[:, :end]) for end in range(length - n + 1, length + 1)]
        )


def greedy_alone(target, longest, symbols=SYMBOLS):
    """The target's greedy output, token by token."""
    prefix = torch.tensor([[symbols.start]])
    while prefix.size(1) <= longest:
        lprobs = symbols.allowed(target(prefix, 1), prefix.size(1) - 1, "target")
        prefix = torch.cat([prefix, lprobs.argmax(-1, keepdim=True)], 1)
        if prefix[0, -1] == symbols.end:
            return prefix[0, 1:].tolist()
    return [*prefix[0, 1:].tolist(), symbols.end]


@settings(max_examples=60, deadline=None)
@given(
    seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    n_drafts=st.integers(1, 7),
    longest=st.integers(1, 15),
    longest_read=st.integers(1, 15),
    may_be_empty=st.booleans(),
)
def test_greedy_output_is_the_targets(seeds, n_drafts, longest, longest_read, may_be_empty):
    """Whatever the draft is: unlike the target, or the same."""
    target, draft = map(Table, seeds)
    symbols = SYMBOLS._replace(may_be_empty=may_be_empty)
    limits = Limits(n_drafts, longest, longest_read)
    tokens, counts = speculate(draft, target, GreedyRule(), limits, symbols)
    assert tokens.tolist() == greedy_alone(target, longest, symbols)
    is_cut = len(tokens) > longest
    assert counts.tokens == len(tokens) - is_cut
    assert counts.accepted <= counts.judged <= counts.drafted <= n_drafts * counts.rounds
    assert counts.judged - counts.accepted <= counts.rounds
    if seeds[0] == seeds[1]:
        assert counts.accepted == counts.drafted


def triple_law(target, temperature):
    """(tokens, ...) probabilities of the target's first three tokens, the end filled up."""
    law = torch.zeros(VOCAB, VOCAB, VOCAB, dtype=torch.float64)

    def following(prefix):
        lprobs = SYMBOLS.allowed(
            target.next_lprobs(torch.tensor([prefix])), len(prefix) - 1, ""
        )
        return (lprobs[0] / temperature).softmax(-1)

    first = following([EOS])
    for a in range(VOCAB):
        if a == PAD or a == EOS:
            continue
        second = following([EOS, a])
        for b in range(VOCAB):
            if b == EOS:
                law[a, b, EOS] += first[a] * second[b]
            elif b != PAD:
                law[a, b] += first[a] * second[b] * following([EOS, a, b])
    return law


@pytest.mark.parametrize("temperature, n_drafts", [(1.0, 1), (1.0, 2), (0.6, 2)])
def test_samples_have_the_targets_law(temperature, n_drafts):
    target, draft = Table(1), Table(2)
    counts, drafts = torch.zeros(VOCAB, VOCAB, VOCAB, dtype=torch.float64), DraftCounts()
    rule = SamplingRule(temperature, seed=5)
    for id_ in range(2500):
        limits = Limits(n_drafts, 3, 100)
        tokens, one = speculate(draft, target, rule.of_sentence(id_), limits, SYMBOLS)
        drafts += one
        a, b, c = [*tokens.tolist(), EOS, EOS][:3]
        counts[a, b, c] += 1
    assert drafts.accepted > 0 and drafts.judged > drafts.accepted
    assert deviation(counts, triple_law(target, temperature)) < 4
    assert deviation(counts, triple_law(draft, temperature)) > 20
    assert deviation(counts, triple_law(target, 0.7 * temperature)) > 20


def test_acceptance_is_one_minus_the_total_variation():
    target, draft, counts = Table(1), Table(2), DraftCounts()
    for id_ in range(2000):
        rule = SamplingRule(seed=3).of_sentence(id_)
        counts += speculate(draft, target, rule, Limits(1, 2, 100), SYMBOLS)[1]
    start = torch.tensor([[EOS]])
    q, p = (SYMBOLS.allowed(m.next_lprobs(start), 0, "").exp() for m in (draft, target))
    p, q = (one / one.sum() for one in (p, q))
    assert counts.drafted == 2000  # behind the first token there is no room for a draft
    assert counts.acceptance_rate == pytest.approx(torch.minimum(p, q).sum().item(), abs=0.03)


def test_samples_depend_on_seed_and_sentence_alone():
    def sample(seed, id_):
        rule = SamplingRule(seed=seed).of_sentence(id_)
        return speculate(Table(2), Table(1), rule, Limits(3, 30, 100), SYMBOLS)[0].tolist()

    assert sample(1, 4) == sample(1, 4)
    assert len({tuple(sample(seed, id_)) for seed in (1, 2) for id_ in range(5)}) > 5


def test_no_numbers_are_refused():
    class Broken(Table):
        def next_lprobs(self, prefix):
            return torch.full((1, VOCAB), torch.nan)

    for models, name in (((Broken(1), Table(2)), "draft"), ((Table(1), Broken(2)), "teacher")):
        with pytest.raises(ValueError, match=rf"the {name} has no probabilities \(NaN\)"):
            speculate(*models, GreedyRule(), Limits(2, 5, 100), SYMBOLS)


def test_numbers_of_drafts():
    """Three rounds by hand: 4 drafted and 4 kept, 4 and 1, 2 and 0."""
    counts = (
        DraftCounts(1, 4, 4, 4, 5) + DraftCounts(1, 4, 2, 1, 2) + DraftCounts(1, 2, 1, 0, 1)
    )
    assert counts == DraftCounts(3, 10, 7, 5, 8)
    assert counts.acceptance_rate == pytest.approx(5 / 7)
    assert counts.accepted_per_round == pytest.approx(5 / 3)
    assert counts.block_efficiency == pytest.approx(8 / 3)
    assert counts.expected_speedup(0.1) == pytest.approx((8 / 3) / (10 / 3 * 0.1 + 1))
    assert counts.expected_speedup(1.0) < 1
    assert DraftCounts().acceptance_rate == DraftCounts().block_efficiency == 0


FCONV = [
    *["--arch", "fconv", "--encoder-embed-dim", "16", "--decoder-embed-dim", "16"],
    *["--decoder-out-embed-dim", "16", "--encoder-layers", "[(16, 3)]"],
    *["--decoder-layers", "[(16, 3)] * 2"],
]


@pytest.fixture(scope="module", params=["transformer", "lstm", "fconv"])
def model(request, data, tmp_path_factory):
    """A model whose states are keys and values, hidden states, or buffers of convolutions."""
    folder = tmp_path_factory.mktemp(request.param)
    flags = {"transformer": TINY, "lstm": LSTM, "fconv": FCONV}[request.param]
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "2"]
    train(data, folder, *loss, model=flags)
    return load_models(str(folder / "checkpoint_last.pt"))[0][0].eval()


@torch.no_grad()
def test_a_scorer_returns_to_what_it_read_before(model):
    source = torch.tensor([[5, 8, 13, 2]])
    inputs = {"src_tokens": source, "src_lengths": torch.tensor([4])}

    def fresh():
        return IncrementalScorer([model], inputs, PAD)

    scorer, prefix = RewindingScorer(fresh(), n_states=4), [EOS, 7, 9, 11, 6]
    for tail in itertools.chain([[]], itertools.product([4, 5], repeat=2), [[4, 5, 6]]):
        prefixes = torch.tensor([[*prefix, *tail]])
        torch.testing.assert_close(
            scorer.next_lprobs(prefixes), fresh().next_lprobs(prefixes), atol=1e-5, rtol=1e-5
        )
    with pytest.raises(ValueError, match="too far back"):
        scorer.next_lprobs(torch.tensor([[EOS, 8, 9]]))
