"""Methods beside the presets, end to end: resumed, on two processes, in half precision."""

import numpy as np
import pytest
import torch
from conftest import HALF, RESUMES, logged, ranks, train
from float64 import kl64, loss_at, rows_of
from test_commands import assert_same, parameters

from fairseq_seqkd.teacher import load_teacher

ON_STUDENT_ROWS = ["--kd-prefixes", "student", "--kd-schedule", "constant", "--kd-beta", 0.5]
DISTILLM_2 = [
    *["--kd-divergence", "adaptive_skew_kl", "--kd-alpha", 1, *ON_STUDENT_ROWS],
    *["--kd-student-divergence", "adaptive_skew_reverse_kl", "--kd-detached-mixture"],
]
METHODS = {
    "DistiLLM-2": [*DISTILLM_2, "--kd-skew-window", 2],
    "ImitKD on CNN/DM": [
        *["--criterion", "imit_kd", "--label-smoothing", 0.1, "--kd-hard-smoothing", 0.1],
        *["--kd-sampling-topk", 5],
    ],
    "TIE-KD": [
        *["--kd-divergence", "ranked_kl", "--kd-passes", 3, "--label-smoothing", 0.1],
        *["--gold-weight", 0.2],
    ],
    "PACED": ["--sentence-weighting", "paced", "--gold-weight", 0.2],
    "Contrastive markings": [
        *["--nll-weighting", "contrastive", "--kd-alpha", 0, "--gold-weight", 0.5],
        *["--kd-prefixes", "student", "--kd-schedule", "constant", "--kd-beta", 0.3],
    ],
    "DistiLLM": [
        *["--kd-divergence", "skew_kl", "--kd-alpha", 1, "--gold-weight", 0.5],
        *["--kd-prefixes", "replay", "--kd-replay-fraction", 0.8],
        *["--kd-replay-capacity", 20, "--kd-max-len-b", 6],
    ],
    "DistiLLM-2, a window over the resume": [*DISTILLM_2, "--kd-skew-window", 7],
}


def method(name, teacher):
    """The flags of a training by a method."""
    run = ["--task", "translation", "--criterion", "distill", "--teacher-path", teacher]
    return [*run, *METHODS[name]]


@RESUMES
@pytest.mark.parametrize("name", METHODS)
def test_ten_updates_equal_five_resume_five(data, teacher, tmp_path, name):
    run = [*method(name, teacher), "--max-update", 10, "--save-interval-updates", 5]
    train(data, tmp_path / "unbroken", *run, "--disable-validation")
    (half,) = (tmp_path / "unbroken").glob("checkpoint_*_5.pt")
    train(data, tmp_path / "resumed", *run, "--disable-validation", "--restore-file", half)
    unbroken, resumed = (
        parameters(tmp_path / name / "checkpoint_last.pt") for name in ("unbroken", "resumed")
    )
    assert_same(unbroken, resumed, rtol=0, atol=0)
    assert not all(torch.equal(unbroken[name], p) for name, p in parameters(half).items())


@pytest.mark.parametrize("name", [name for name in METHODS if "resume" not in name])
def test_two_ranks_equal_update_freq_two(data, teacher, tmp_path, name):
    run = [*method(name, teacher), "--dropout", 0, "--max-update", 4, "--disable-validation"]
    train(data, tmp_path / "one", *run, "--update-freq", 2)
    ranks(2, data, tmp_path / "two", *run)
    one, two = (parameters(tmp_path / n / "checkpoint_last.pt") for n in ("one", "two"))
    assert_same(one, two, rtol=0, atol=1e-5)


@HALF
@pytest.mark.parametrize("name", [name for name in METHODS if "resume" not in name])
def test_half_precision(data, teacher, tmp_path, name):
    mode = ["--fp16", "--fp16-no-flatten-grads", "--max-update", 2]
    log = train(data, tmp_path, *method(name, teacher), *mode)
    values = logged(log, "train")[-1]
    assert abs(float(values["train_loss"])) < 100
    assert 0 < float(values.get("train_kd_loss", 1)) < 100


def test_distillm_2_equals_float64_computation(training, task, student, teacher, batch):
    """Half of the rows are the student's; m is known from the second update on."""
    rows = [True, False, True, False, False, True]
    criterion = training(
        kd_alpha=1.0,
        kd_prefixes="student",
        kd_divergence="adaptive_skew_kl",
        kd_student_divergence="adaptive_skew_reverse_kl",
        kd_skew_window=1,
        kd_largest_skew=0.3,
    )
    rule = criterion.method.prefix_policy.row_rule
    rule.select = lambda *_: (torch.tensor(rows), 0.5)
    frozen = load_teacher(str(teacher))
    torch.manual_seed(1)
    step = criterion.current_step()
    sample = criterion.method.prefix_policy(batch, student, frozen, task, step).sample
    pairs = list(rows_of(student, frozen, sample, task.target_dictionary.pad()))
    gaps = []
    for is_student, (p, q, target) in zip(rows, pairs):
        qbar, pbar = (np.exp(np.log(x[range(len(target)), target]).mean()) for x in (q, p))
        gaps.append(pbar - qbar if is_student else qbar - pbar)
    gaps, of_student = np.array(gaps), np.array(rows)
    means = np.where(of_student, gaps[of_student].mean(), gaps[~of_student].mean())
    adaptive = np.clip(1 - 0.7 * means / (gaps + 1e-5), 0.01, 0.3)
    assert len(set(adaptive.round(6))) > 2
    for update, skews in enumerate((np.full(6, 0.3), adaptive)):
        expected = 0.0
        for is_student, a, (p, q, _) in zip(rows, skews, pairs):
            first, second = (p, q) if is_student else (q, p)
            expected += kl64(first, a * first + (1 - a) * second)
        loss = loss_at(update, criterion, student, batch)
        assert loss == pytest.approx(expected, rel=1e-5)


def test_smoothed_relabelled_rows_equal_float64_computation(
    task, student, teacher, batch, training
):
    """Data rows learn smoothed targets, student rows the teacher's best token, smoothed."""
    rows = [True, False, True, False, False, True]
    smoothing = {"label_smoothing": 0.2, "kd_hard_smoothing": 0.1}
    criterion = training(kd_prefixes="student", kd_divergence="hard", kd_alpha=0.0, **smoothing)
    rule = criterion.method.prefix_policy.row_rule
    rule.select = lambda *_: (torch.tensor(rows), 0.5)
    frozen = load_teacher(str(teacher))
    torch.manual_seed(1)
    step = criterion.current_step()
    sample = criterion.method.prefix_policy(batch, student, frozen, task, step).sample
    expected = 0.0
    all_rows = rows_of(student, frozen, sample, task.target_dictionary.pad())
    for is_student, (p, q, target) in zip(rows, all_rows):
        target, epsilon = (q.argmax(-1), 0.1) if is_student else (target, 0.2)
        label = np.full(p.shape, epsilon / (p.shape[-1] - 1))
        label[range(len(target)), target] = 1 - epsilon
        expected -= (label * np.log(p)).sum()
    assert loss_at(0, criterion, student, batch) == pytest.approx(expected, rel=1e-5)
