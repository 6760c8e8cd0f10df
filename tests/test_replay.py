"""DistiLLM's mixture of fresh rows, rows of a replay buffer, and the data."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.tasks.translation import TranslationTask
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask

from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.prefixes import PREFIXES, PolicyMemory, TrainingStep, replay
from fairseq_seqkd.prefixes.buffer import NAMES, ReplayBuffer, numbered_sentences
from fairseq_seqkd.prefixes.replay import FRACTION, AdaptiveFraction

STEP = TrainingStep(seed=1, update=7, progress=0.25)


def alone(values):
    """What a single process gathers."""
    return values


def memory(values=None, nll=None):
    return PolicyMemory({} if values is None else values, alone, nll)


@pytest.fixture(scope="module")
def student(word_kd_student):
    return load_models(str(word_kd_student[0] / "checkpoint_last.pt"))[0][0].train()


@pytest.fixture(scope="module")
def batch(task):
    dataset = task.dataset("train")
    return dataset.collater([dataset[i] for i in (20, 21, 22, 23)])


def policy(**settings):
    return PREFIXES.resolve("replay", {"kd_max_len_b": 6, **settings})()


@pytest.fixture
def settle(student, loaded, task):
    """settle(batch, values, step, settings...) -> PrefixedBatch."""

    def settle(batch, values, step=STEP, nll=None, **settings):
        of_step = step and memory(values, nll)
        return policy(**settings)(batch, student, loaded, task, step, of_step)

    return settle


def rows(sample, task):
    """[(sentence, source, context, target)] without padding."""
    pad, inputs = task.target_dictionary.pad(), sample["net_input"]
    columns = inputs["src_tokens"], inputs["prev_output_tokens"], sample["target"]
    parts = ([row[row.ne(pad)].tolist() for row in column] for column in columns)
    return list(zip(sample["id"].tolist(), *parts))


# phi and its reference.


def phis(losses, first=0.0, reference=0.0, tolerance=0.1):
    """phi after each validation."""
    values, fraction = {}, AdaptiveFraction(first, reference, tolerance)
    return [fraction.follow(memory(values, loss)) for loss in losses]


def test_phi_grows_where_the_validation_became_worse():
    """Where it did not grow, the reference stays: 2 is no new one."""
    losses = [3.0, 3.0625, 3.125, 3.1875, 3.25, 2.0, None, 3.375, 3.375]
    expected = [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.2, 0.3, 0.3]
    assert phis(losses, tolerance=0.125) == pytest.approx(expected)


def test_a_reference_before_training_is_in_bits():
    worse = 3.0 + 0.11
    assert phis([worse], reference=3.0 / math.log(2)) == pytest.approx([0.1])
    assert phis([3.0 + 0.09], reference=3.0 / math.log(2)) == [0.0]


def test_phi_is_at_most_one_and_begins_where_it_is_told():
    assert phis([1.0, 2.0, 3.0, 4.0], first=0.85) == pytest.approx([0.85, 0.95, 1.0, 1.0])


# Which kind of batch.


def kinds(phi, progress, n_stored, batch):
    """How often each kind falls in 4000 updates."""
    rule, counts = policy(), {}
    for update in range(4000):
        step = STEP._replace(update=update, progress=progress)
        kind = rule.kind_of(batch, phi, n_stored, step)
        counts[kind] = counts.get(kind, 0) + 1
    return {kind: n / 4000 for kind, n in counts.items()}


def test_the_law_of_the_kinds(batch):
    """0.5 has a standard deviation of 0.008 in 4000 draws."""
    full, near = 1000, {"abs": 0.032}
    law = kinds(0.6, 0.25, full, batch)
    assert law == pytest.approx({"fresh": 0.45, "replayed": 0.15, "data": 0.4}, **near)
    assert kinds(0.6, 0.25, full - 1, batch) == pytest.approx(
        {"fresh": 0.6, "data": 0.4}, **near
    )
    assert kinds(1.0, 1.0, full, batch) == {"replayed": 1.0}
    assert kinds(0.0, 0.0, full, batch) == {"data": 1.0}


# The buffer.


def test_first_in_first_out():
    values = {}
    for update in range(5):
        buffer = ReplayBuffer(values, 5, update)
        assert len(buffer) == min(2 * update, 5)
        ids = torch.tensor([10 * update + 1, 10 * update])
        buffer.add(ids, [torch.tensor([5, update, 2]), torch.tensor([2])], alone)
    entries = [(id_, target.tolist()) for id_, target in ReplayBuffer(values, 5, 5).entries()]
    latest = [(21, [5, 2, 2]), (30, [2]), (31, [5, 3, 2]), (40, [2]), (41, [5, 4, 2])]
    assert entries == latest


def test_the_order_of_batches_and_processes_does_not_matter():
    one, two, targets = {}, {}, {i: torch.arange(i) for i in (3, 5, 8)}
    ReplayBuffer(one, 9, 0).add(torch.tensor([8, 3]), [targets[8], targets[3]], alone)
    ReplayBuffer(one, 9, 0).add(torch.tensor([5]), [targets[5]], alone)
    ReplayBuffer(two, 9, 0).add(torch.tensor([5]), [targets[5]], alone)
    ReplayBuffer(two, 9, 0).add(torch.tensor([3, 8]), [targets[3], targets[8]], alone)
    assert all(torch.equal(one[name], two[name]) for name in NAMES)
    assert len(ReplayBuffer(one, 9, 0)) == 0 and len(ReplayBuffer(one, 9, 1)) == 3


def test_a_replayed_row_is_the_row_that_was_generated(settle, batch, task):
    values, settings = {}, {"kd_replay_fraction": 1.0, "kd_replay_capacity": 4}
    fresh = settle(batch, values, STEP, **settings)
    assert fresh.log["n_replayed"] == 0 and fresh.student_rows_mask.all()
    later = STEP._replace(update=8, progress=1.0)
    replayed = settle(batch, values, later, **settings)
    assert sorted(rows(replayed.sample, task)) == sorted(rows(fresh.sample, task))
    assert replayed.log["n_replayed"] == replayed.log["n_student_rows"] == 4
    assert replayed.sample["ntokens"] == fresh.sample["ntokens"]
    assert replayed.log.keys() == fresh.log.keys()
    gold = replayed.sample["gold"]["target"]
    assert sorted(gold.tolist()) == sorted(batch["target"].tolist())


def test_targets_that_the_teacher_makes_in_the_step_are_of_the_data_by_their_gold(
    settle, batch
):
    """--pseudo-targets online."""
    values, gold = {}, {"target": batch["target"]}
    settle(
        {**batch, "target": batch["target"] + 1, "gold": gold}, values, kd_replay_fraction=1.0
    )
    assert len(ReplayBuffer(values, 9, 100)) == 4


def test_rows_are_drawn_uniformly_and_once(settle, batch, task):
    values, n = {}, 12
    ids = torch.arange(40, 40 + n)
    targets = [torch.tensor([5 + i, 2]) for i in range(n)]
    ReplayBuffer(values, n, 0).add(ids, targets, alone)
    counts, settings = np.zeros(n), {"kd_replay_fraction": 1.0, "kd_replay_capacity": n}
    for update in range(1, 601):
        settled = settle(batch, values, TrainingStep(1, update, 1.0), **settings)
        drawn = [(id_, target) for id_, _, _, target in rows(settled.sample, task)]
        assert all(target == [5 + id_ - 40, 2] for id_, target in drawn)
        assert len({id_ for id_, _ in drawn}) == len(drawn)
        for id_, _ in drawn:
            counts[id_ - 40] += 1
    expected = counts.sum() / n
    # chi-square of 11 degrees of freedom: above 31 once in a thousand
    assert ((counts - expected) ** 2 / expected).sum() < 31


def test_a_sentence_may_be_there_twice(settle, batch, task):
    values, settings = {}, {"kd_replay_fraction": 1.0, "kd_replay_capacity": 2}
    targets = [torch.tensor([7, 2]), torch.tensor([8, 9, 2])]
    for update, target in enumerate(targets):
        ReplayBuffer(values, 2, update).add(torch.tensor([20]), [target], alone)
    replayed = settle(batch, values, TrainingStep(1, 5, 1.0), **settings)
    found = rows(replayed.sample, task)
    assert sorted(target for _, _, _, target in found) == [[7, 2], [8, 9, 2]]
    assert {id_ for id_, _, _, _ in found} == {20}


def test_a_batch_of_the_validation_joins_no_buffer(settle, task, monkeypatch):
    """A process of several that has run out of batches repeats one."""
    valid, values = task.dataset("valid"), {}
    batch = valid.collater([valid[i] for i in range(4)])
    with pytest.raises(ValueError, match="are not those of the training set, in the task"):
        settle(batch, values, kd_replay_fraction=1.0)
    monkeypatch.setattr(replay.distributed_utils, "get_data_parallel_world_size", lambda: 2)
    settle(batch, values, kd_replay_fraction=1.0)
    assert len(ReplayBuffer(values, 9, 100)) == 0


def test_a_long_row_in_the_buffer_keeps_batches_small(settle, batch, task):
    values, settings = {}, {"kd_replay_fraction": 1.0, "kd_replay_capacity": 5}
    targets = [torch.tensor([5, 2])] * 4 + [torch.tensor([5] * 49 + [2])]
    ReplayBuffer(values, 5, 0).add(torch.arange(30, 35), targets, alone)
    replayed = settle(batch, values, TrainingStep(1, 5, 1.0), **settings)
    longest = 1.2 * batch["net_input"]["src_lengths"].max() + 6
    assert len(replayed.sample["target"]) == int(4 * longest // 50) == 1


def test_validation_stays_as_it_is(settle, batch):
    training, validation = (settle(batch, {}, step) for step in (STEP, None))
    assert validation.sample is batch and training.sample is batch  # phi is 0
    assert validation.log.keys() == training.log.keys()
    assert validation.log["n_validation_tokens"] == batch["ntokens"]
    assert training.log["n_validation_tokens"] == 0


def test_the_fraction_is_remembered(settle, batch):
    values = {}
    settle(batch, values, nll=1.0)
    settle(batch, values, nll=1.2)
    assert values[FRACTION].tolist() == pytest.approx([0.1, 1.2])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"kd_replay_capacity": 0}, "--kd-replay-capacity is 0, expected a whole number"),
        ({"kd_replay_fraction": 1.5}, "--kd-replay-fraction is 1.5, expected a number from 0"),
        ({"kd_replay_reference": -1.0}, "--kd-replay-reference is -1.0"),
        ({"kd_replay_tolerance": -0.1}, "--kd-replay-tolerance is -0.1"),
    ],
)
def test_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        policy(**settings)


class ConcatAugment:
    """By this name fairseq's transform is known, which joins utterances at random."""


@pytest.mark.parametrize(
    "kind, transforms, message",
    [
        (TranslationMultiSimpleEpochTask, [], "the task TranslationMultiSimpleEpochTask has"),
        (TranslationTask, [ConcatAugment()], "speech is joined at random"),
    ],
)
def test_numbers_that_are_not_of_one_sentence_are_refused(kind, transforms, message):
    task = kind.__new__(kind)
    task.cfg = task.args = SimpleNamespace(data="one")
    dataset = torch.utils.data.TensorDataset(torch.zeros(1))
    dataset.dataset_transforms = SimpleNamespace(transforms=transforms)
    task.dataset = lambda split: dataset
    with pytest.raises(ValueError, match=f"--kd-prefixes replay: {message}.*Expected one"):
        numbered_sentences(task)
