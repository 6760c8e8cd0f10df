import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.decoding.rollout import IncrementalScorer, can_generate, roll_out
from fairseq_seqkd.decoding.search import SearchOptions


@pytest.fixture(scope="module")
def batch(loaded):
    loaded.task.load_dataset("valid")
    dataset = loaded.task.dataset("valid")
    return dataset.collater([dataset[i] for i in range(12)])


def greedy(rows, lprobs):
    return lprobs.max(-1).indices


def generated(loaded, net_input, limits, models=None):
    """The rows' tokens, as lists."""
    dictionary = loaded.task.target_dictionary
    scorer = IncrementalScorer(models or loaded.models, net_input, dictionary.pad())
    rows = roll_out([scorer], greedy, limits, *eos_around(limits, dictionary))
    return [row.tolist() for row in rows]


def eos_around(limits, dictionary):
    """The starts and ends of targets without language tokens, and the padding symbol."""
    ends = torch.full_like(limits, dictionary.eos())
    return ends.unsqueeze(1), ends, dictionary.pad()


def test_greedy_is_fairseqs_beam_of_one(loaded, batch):
    found = loaded.generate(batch["net_input"], SearchOptions(beam=1))
    theirs = [hypotheses[0]["tokens"].tolist() for hypotheses in found]
    ours = generated(loaded, batch["net_input"], torch.tensor([50] * 12))
    # fairseq's search never ends a hypothesis at once, and ends what is too long.
    pairs = [(a, b) for a, b in zip(ours, theirs) if len(a) > 1 and len(b) < 50]
    assert all(a == b for a, b in pairs)
    assert len({len(a) for a, _ in pairs}) > 1 and len(pairs) > 5


def test_ensemble_of_two_copies_equals_one(loaded, batch):
    limits = torch.tensor([50] * 12)
    two = [loaded.models[0], loaded.models[0]]
    assert generated(loaded, batch["net_input"], limits, two) == generated(
        loaded, batch["net_input"], limits
    )


def test_a_row_does_not_depend_on_its_batch(loaded, batch):
    dataset = loaded.task.dataset("valid")
    together = dict(
        zip(
            batch["id"].tolist(), generated(loaded, batch["net_input"], torch.tensor([50] * 12))
        )
    )
    for i in range(12):
        alone = dataset.collater([dataset[i]])["net_input"]
        assert generated(loaded, alone, torch.tensor([50])) == [together[i]]


def test_every_row_has_its_own_limit(loaded, batch):
    free = generated(loaded, batch["net_input"], torch.tensor([50] * 12))
    limits = torch.arange(1, 13)
    cut = generated(loaded, batch["net_input"], limits)
    assert cut == [row[:limit] for row, limit in zip(free, limits.tolist())]


def test_two_scorers_take_part(loaded, batch):
    dictionary = loaded.task.target_dictionary
    scorers = [
        IncrementalScorer(loaded.models, batch["net_input"], dictionary.pad()) for _ in range(2)
    ]
    seen = []

    def next_tokens(rows, one, two):
        torch.testing.assert_close(one, two)
        seen.append(rows.tolist())
        return greedy(rows, two)

    limits = torch.tensor([3, 1] * 6)
    roll_out(scorers, next_tokens, limits, *eos_around(limits, dictionary))
    assert seen == [list(range(12)), list(range(0, 12, 2)), list(range(0, 12, 2))]


def test_padding_is_never_generated(loaded, batch):
    dictionary = loaded.task.target_dictionary
    scorer = IncrementalScorer(loaded.models, batch["net_input"], dictionary.pad())
    lprobs = scorer.next_lprobs(torch.full((12, 1), dictionary.eos()))
    assert (lprobs[:, dictionary.pad()] == -float("inf")).all()


def test_models_that_can_generate(loaded):
    assert can_generate(loaded.models[0])
    assert not can_generate(loaded.models[0].encoder)
    assert not can_generate(torch.nn.Linear(1, 1))


@settings(max_examples=15, deadline=None)
@given(data=st.data(), n_given=st.integers(1, 3))
def test_given_symbols_begin_and_end_each_target(loaded, batch, data, n_given):
    """Each token is the model's best after the whole prefix; a row ends at its own symbol."""
    symbols = st.integers(3, 60)
    starts = torch.tensor([[data.draw(symbols) for _ in range(n_given)] for _ in range(12)])
    ends = torch.tensor([data.draw(st.one_of(st.just(2), symbols)) for _ in range(12)])
    limits = torch.tensor([data.draw(st.integers(1, 8)) for _ in range(12)])
    inputs = {k: v for k, v in batch["net_input"].items() if k != "prev_output_tokens"}
    scorer = IncrementalScorer(loaded.models, inputs, 1)
    rows = roll_out([scorer], greedy, limits, starts, ends, 1)
    for i, row in enumerate(rows):
        given_, generated_ = row[: n_given - 1], row[n_given - 1 :]
        assert torch.equal(given_, starts[i, 1:])
        assert 1 <= len(generated_) <= limits[i]
        assert not generated_[:-1].eq(ends[i]).any()
        assert generated_[-1] == ends[i] or len(generated_) == limits[i]
        context = torch.cat([starts[i, :1], row[:-1]]).unsqueeze(0)
        source = {"src_tokens": inputs["src_tokens"][i : i + 1]}
        source["src_lengths"] = inputs["src_lengths"][i : i + 1]
        with torch.no_grad():
            logits = loaded.models[0](**source, prev_output_tokens=context)[0][0]
        logits[:, 1] = -torch.inf
        assert torch.equal(logits[n_given - 1 :].argmax(-1), generated_)
