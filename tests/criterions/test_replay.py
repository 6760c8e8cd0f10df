"""DistiLLM's fraction and buffer in a training: its loss, validation, resumes and refusals."""

import math

import numpy as np
import pytest
import torch
from conftest import RESUMES, S2T, logged, ranks, train
from float64 import kl64, loss_at, rows_of
from test_commands import assert_same, parameters

from fairseq_seqkd.criterions import validation
from fairseq_seqkd.models.checkpoints import read_checkpoint
from fairseq_seqkd.prefixes.buffer import ReplayBuffer
from fairseq_seqkd.teacher import load_teacher

REPLAY = [
    *["--criterion", "distill", "--kd-divergence", "skew_kl", "--kd-alpha", 1],
    *["--kd-prefixes", "replay", "--kd-max-len-b", 6, "--kd-replay-capacity", 20],
]
# Every validation is worse than this.
WORSE = ["--kd-replay-reference", 0.01, "--kd-replay-tolerance", 0]


def state_in(checkpoint):
    return read_checkpoint(str(checkpoint))["task_state"]["fairseq_seqkd"]


def noted_in(checkpoint):
    """The validation that is noted for the next step, in nats."""
    meters = read_checkpoint(str(checkpoint))["extra_state"]["metrics"]
    (meter,) = meters[validation.AGGREGATOR]
    return meter[3]["sum"] / meter[3]["count"]


def common(teacher):
    return ["--task", "translation", "--teacher-path", teacher, "--dropout", 0]


def test_the_loss_equals_float64_computation(training, task, student, teacher, batch):
    """Three rows of the buffer and two generated ones that would be there with them."""
    task.datasets["train"], saved = task.dataset("valid"), task.dataset("train")
    try:
        criterion = training(
            kd_alpha=1.0, kd_prefixes="replay", kd_divergence="skew_kl", kd_skew=0.1,
            kd_replay_fraction=1.0, kd_replay_capacity=3, disable_validation=False,
        )  # fmt: skip
        targets = {3: [7, 9, 2], 8: [5, 2], 11: [11, 12, 13, 2]}
        values, ids = criterion._memory.values, torch.tensor(list(targets))
        tensors = [torch.tensor(target) for target in targets.values()]
        ReplayBuffer(values, 3, -1).add(ids, tensors, lambda numbers: numbers)
        criterion._memory._is_restored = True
        loss = loss_at(10, criterion, student, batch)
    finally:
        task.datasets["train"] = saved
    dataset, frozen = task.dataset("valid"), load_teacher(str(teacher))
    items = [{**dataset[id_], "target": t} for id_, t in zip(targets, tensors)]
    sample, expected = dataset.collater(items), 0.0
    for p, q, _ in rows_of(student, frozen, sample, task.target_dictionary.pad()):
        expected += kl64(q, 0.1 * q + 0.9 * p)
    assert loss == pytest.approx(expected, rel=1e-6)


@RESUMES
def test_ten_updates_equal_five_resume_five(data, teacher, tmp_path):
    """Validations raise phi before and after, and one stands between."""
    run = [*common(teacher), *REPLAY, *WORSE, "--dropout", 0.1, "--max-update", 10]
    run += ["--validate-interval-updates", 1, "--kd-replay-fraction", 0.4, "--lr", 0.5]
    train(data, tmp_path / "unbroken", *run, "--save-interval-updates", 5)
    (half,) = (tmp_path / "unbroken").glob("checkpoint_*_5.pt")
    train(data, tmp_path / "resumed", *run, "--restore-file", half)
    files = [tmp_path / name / "checkpoint_last.pt" for name in ("unbroken", "resumed")]
    assert_same(*map(parameters, files), rtol=0, atol=0)
    (one, two), before = map(state_in, files), state_in(half)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert one["adaptive_fraction"][0] > before["adaptive_fraction"][0] > 0.4
    assert len(one["replay_ids"]) > 0


def test_a_validation_at_the_end_of_an_epoch_is_not_forgotten(data, teacher, tmp_path):
    """fairseq does not restore its meters there."""
    run = [*common(teacher), *REPLAY, "--max-update", 100]
    train(data, tmp_path, *run, "--max-epoch", 1)
    last = tmp_path / "checkpoint_last.pt"
    noted, n_updates = noted_in(last), read_checkpoint(str(last))["optimizer_history"][-1]
    run += ["--max-update", n_updates["num_updates"] + 1]
    train(data, tmp_path, *run)
    assert state_in(last)["adaptive_fraction"].tolist() == [0.0, noted]


def test_the_validation_is_that_of_the_log(data, teacher, tmp_path):
    run = [*common(teacher), *REPLAY, *WORSE, "--max-update", 3]
    log = train(data, tmp_path, *run, "--validate-interval-updates", 1)
    nlls = [float(values["valid_nll_loss"]) for values in logged(log, "valid")]
    noted = noted_in(tmp_path / "checkpoint_last.pt") / math.log(2)
    assert noted == pytest.approx(nlls[-1], abs=6e-4)
    phi, reference = state_in(tmp_path / "checkpoint_last.pt")["adaptive_fraction"].tolist()
    assert phi >= 0.1 and reference / math.log(2) == pytest.approx(max(nlls[:-1]), abs=6e-4)


def test_two_processes_note_the_validation_and_the_rows_that_one_does(data, teacher, tmp_path):
    """Of seven batches of the validation one process has four, the other three."""
    run = [*common(teacher), *REPLAY, "--kd-replay-fraction", 1, "--lr", 0, "--max-update", 2]
    run += ["--max-tokens-valid", 60, "--validate-interval-updates", 1]
    train(data, tmp_path / "one", *run, "--update-freq", 2)
    ranks(2, data, tmp_path / "two", *run)
    one, two = (tmp_path / name / "checkpoint_last.pt" for name in ("one", "two"))
    assert noted_in(one) == pytest.approx(noted_in(two), rel=1e-6)
    states = state_in(one), state_in(two)
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name])
    assert len(states[0]["replay_ids"]) > 0 and states[0]["adaptive_fraction"][1] > 0


def test_speech_is_replayed(speech, speech_teacher, tmp_path):
    """The buffer has numbers of utterances, and their features come from the data set."""
    run = ["--task", "speech_to_text", "--teacher-path", speech_teacher, *REPLAY]
    run += ["--kd-replay-fraction", 1, "--kd-replay-capacity", 5, "--kd-max-len-a", 0.05]
    run += ["--max-tokens", 600, "--max-update", 4, "--disable-validation"]
    log = train(speech, tmp_path, *run, model=S2T)
    replayed = [float(v["replayed"]) for v in logged(log, "train_inner")]
    assert replayed[0] == 0 and max(replayed) == 100
    assert np.isfinite([float(v["loss"]) for v in logged(log, "train_inner")]).all()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--max-update", 0], "but --kd-prefixes replay needs to know how long"),
        (["--disable-validation"], "until a validation has become worse"),
        (["--kd-schedule", "linear"], "--kd-schedule is linear, but nothing uses it"),
    ],
)
def test_refused(data, teacher, tmp_path, flags, message):
    run = [*common(teacher), *REPLAY, "--max-update", 1, *flags]
    assert message in train(data, tmp_path, *run, fails=True)


def test_several_data_bins_are_refused(halves, teacher, tmp_path):
    """At once, and not when the first rows are generated."""
    run = [*common(teacher), *REPLAY, "--kd-replay-fraction", 1e-9, "--max-update", 1]
    data = ":".join(map(str, halves))
    output = train(data, tmp_path, *run, "--disable-validation", fails=True)
    assert "are several data-bins" in output and "--kd-prefixes student" in output


def test_a_checkpoint_of_another_method_is_refused(data, teacher, tmp_path):
    plain = ["--criterion", "distill", "--max-update", 1]
    train(data, tmp_path, *common(teacher), *plain)
    more = [*REPLAY, "--max-update", 2]
    output = train(data, tmp_path, *common(teacher), *more, fails=True)
    assert "remembers nothing from batch to batch, and this one remembers adaptive" in output
