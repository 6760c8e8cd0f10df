import pytest
import torch
from conftest import LONG

from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.pseudo.online import with_pseudo_targets
from fairseq_seqkd.pseudo.selectors import Best, Closest

IDS = [3, LONG, 150, 42]


@pytest.fixture
def batch(split):
    return split.dataset.collater([split.dataset[id_] for id_ in IDS])


def rows(tensor, pad):
    """The rows of a padded tensor as lists of tokens without padding."""
    return [[t for t in row if t != pad] for row in tensor.tolist()]


def test_every_row_gets_the_translation_of_its_source(batch, loaded):
    changed = with_pseudo_targets(batch, loaded, SearchOptions(3), Best())
    pad = loaded.task.target_dictionary.pad()
    targets, gold = rows(changed["target"], pad), rows(batch["target"], pad)
    for row, id_ in enumerate(batch["id"].tolist()):
        length = batch["net_input"]["src_lengths"][row]
        source = batch["net_input"]["src_tokens"][row, -length:][None]
        if id_ == LONG:
            assert targets[row] == gold[row]
        else:
            inputs = {"src_tokens": source, "src_lengths": length[None]}
            best = loaded.generate(inputs, SearchOptions(3))[0][0]
            expected = best["tokens"].tolist() if best["finished"] else gold[row]
            assert targets[row] == expected
    shifted = rows(changed["net_input"]["prev_output_tokens"], pad)
    assert shifted == [[row[-1], *row[:-1]] for row in targets]
    assert changed["ntokens"] == sum(map(len, targets))
    assert torch.equal(changed["net_input"]["src_tokens"], batch["net_input"]["src_tokens"])


def test_gold_is_kept(batch, loaded):
    changed = with_pseudo_targets(batch, loaded, SearchOptions(), Best())
    assert torch.equal(changed["gold"]["target"], batch["target"])
    gold_input = changed["gold"]["prev_output_tokens"]
    assert torch.equal(gold_input, batch["net_input"]["prev_output_tokens"])


def test_the_batch_is_not_changed(batch, loaded):
    before = {"target": batch["target"].clone(), "ntokens": batch["ntokens"]}
    with_pseudo_targets(batch, loaded, SearchOptions(), Best())
    assert torch.equal(batch["target"], before["target"])
    assert batch["ntokens"] == before["ntokens"] and "gold" not in batch


def test_closest_compares_with_the_gold_of_the_same_row(batch, loaded):
    search = SearchOptions(4, 4)
    closest = Closest(loaded.task.target_dictionary)
    changed = with_pseudo_targets(batch, loaded, search, closest)
    pad = loaded.task.target_dictionary.pad()
    gold = [torch.tensor(row) for row in rows(batch["target"], pad)]
    for row, id_ in enumerate(batch["id"].tolist()):
        if id_ == LONG:
            continue
        inputs = {
            key: batch["net_input"][key][row : row + 1] for key in ("src_tokens", "src_lengths")
        }
        found = loaded.generate(inputs, search)[0]
        pairs = [
            (one["tokens"].numpy(), float(one["score"])) for one in found if one["finished"]
        ]
        expected = pairs[closest(pairs, gold[row])][0] if pairs else gold[row]
        assert rows(changed["target"], pad)[row] == expected.tolist()


def test_samples_differ_between_updates_and_not_between_calls(batch, loaded):
    search = SearchOptions(1, 1, sampling=True)
    one, again, later = (
        with_pseudo_targets(batch, loaded, search, Best(), draw=draw)["target"].tolist()
        for draw in (7, 7, 8)
    )
    assert one == again != later


def test_draws_nothing_from_torchs_generator(batch, loaded):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with_pseudo_targets(batch, loaded, SearchOptions(1, 1, sampling=True), Best())
    assert torch.equal(torch.get_rng_state(), before)


def test_all_too_long(split, loaded):
    batch = split.dataset.collater([split.dataset[LONG]])
    changed = with_pseudo_targets(batch, loaded, SearchOptions(), Best())
    assert torch.equal(changed["target"], batch["target"])
