"""PACED and contrastive markings: the whole loss, what is needed, and what is refused."""

import numpy as np
import pytest
import torch
from conftest import logged, train
from float64 import kl64, loss_at, rows_of

from fairseq_seqkd.models.batches import targets_of
from fairseq_seqkd.teacher import load_teacher

MARKINGS = {"nll_weighting": "contrastive", "kd_alpha": 0.0, "teacher_path": None}
STUDENT_TEXT = {"kd_prefixes": "student", "kd_schedule": "constant", "kd_beta": 0.3}


def smoothed_nll(p, target, epsilon):
    """(length,) fairseq's label-smoothed NLL of (length, vocab) probabilities."""
    label = np.full(p.shape, epsilon / (p.shape[-1] - 1))
    label[range(len(target)), target] = 1 - epsilon
    return -(label * np.log(p)).sum(-1)


def test_paced_weighs_all_terms(training, task, student, teacher, batch):
    """NLL, divergence and gold's NLL of a sentence have its weight, and validation has none."""
    values = {"kd_alpha": 0.3, "gold_weight": 0.4, "label_smoothing": 0.1}
    criterion = training(sentence_weighting="paced", **values)
    pad, frozen = task.target_dictionary.pad(), load_teacher(str(teacher))
    gold = {name: x.roll(1, dims=0) for name, x in targets_of(batch).items()}
    of_gold = {**batch, "target": gold["target"]}
    of_gold["net_input"] = {
        **batch["net_input"],
        "prev_output_tokens": gold["prev_output_tokens"],
    }
    both = zip(*(rows_of(student, frozen, one, pad) for one in (batch, of_gold)))
    weighted, uniform = 0.0, 0.0
    for (p, q, target), (p_gold, _, gold_target) in both:
        f = p[range(len(target)), target].mean()
        nll = smoothed_nll(p, target, 0.1).sum()
        loss = 0.6 * (0.7 * nll + 0.3 * sum(map(kl64, q, p)))
        loss += 0.4 * smoothed_nll(p_gold, gold_target, 0.1).sum()
        weighted, uniform = weighted + f * (1 - f) * loss, uniform + loss
    sample = {**batch, "gold": gold}
    assert loss_at(0, criterion, student, sample) == pytest.approx(weighted, rel=1e-5)
    log = criterion(student, sample)[2]
    assert 0 < log["sentence_weight"] < 0.25 * 6
    criterion.eval()
    assert loss_at(0, criterion, student, sample) == pytest.approx(uniform, rel=1e-5)
    assert criterion(student, sample)[2].keys() == log.keys()


def marked(rows, gold_rows):
    """The loss of markings on the student's and the data's rows, beside gold's NLL."""
    total = 0.0
    for (p, target), (p_gold, gold) in zip(rows, gold_rows):
        v = np.where(np.isin(target, gold), 0.8, -0.2)
        total += 0.75 * (v * smoothed_nll(p, target, 0.1)).sum()
        total += 0.25 * smoothed_nll(p_gold, gold, 0.1).sum()
    return total


@pytest.mark.parametrize("author", ["student", "teacher"])
def test_contrastive_markings_equal_float64_computation(
    training, task, student, teacher, batch, author
):
    """Without a teacher's distributions; the hypotheses are the student's, or given ones."""
    signs = {"nll_correct_weight": 0.8, "nll_incorrect_weight": -0.2}
    values = {**MARKINGS, **signs, "gold_weight": 0.25, "label_smoothing": 0.1}
    if author == "student":
        criterion = training(**values, **STUDENT_TEXT)
        torch.manual_seed(1)
        step = criterion.current_step()
        policy = criterion.method.prefix_policy
        sample, student_rows_mask, _ = policy(batch, student, None, task, step)
        assert 0 < student_rows_mask.sum() < 6
    else:
        criterion = training(**values, kd_targets="gold", **STUDENT_TEXT)
        criterion.method.prefix_policy = None
        sample = {**batch, "gold": {k: x.roll(1, dims=0) for k, x in targets_of(batch).items()}}
    pad, frozen = task.target_dictionary.pad(), load_teacher(str(teacher))
    inputs = {
        **sample["net_input"],
        "prev_output_tokens": sample["gold"]["prev_output_tokens"],
    }
    of_gold = {**sample, "target": sample["gold"]["target"], "net_input": inputs}
    rows, gold_rows = (
        [(p, target) for p, _, target in rows_of(student, frozen, one, pad)]
        for one in (sample, of_gold)
    )
    given = batch if author == "student" else sample
    expected = marked(rows, gold_rows)
    assert loss_at(0, criterion, student, given) == pytest.approx(expected, rel=1e-5)
    assert "kd_loss" not in criterion(student, given)[2]


def test_a_row_without_gold_has_no_markings(training, task, student, batch):
    """Neither do its tokens count as wrong."""
    criterion = training(**MARKINGS, **STUDENT_TEXT)
    criterion.method.prefix_policy = None
    pad = task.target_dictionary.pad()
    gold = {name: tokens.clone() for name, tokens in targets_of(batch).items()}
    gold["target"][2] = pad
    loss = loss_at(0, criterion, student, {**batch, "gold": gold})
    target = batch["target"].clone()
    target[2] = pad
    without = {**batch, "target": target, "gold": targets_of(batch)}
    assert loss == pytest.approx(loss_at(0, criterion, student, without), rel=1e-5)


def test_student_rows_keep_alpha_beside_markings(training, student, batch):
    """With a teacher a is the same in all rows, and both terms count."""
    both = {**MARKINGS, **STUDENT_TEXT, "kd_beta": 0.0}
    del both["teacher_path"]
    losses = {}
    for alpha in (0.0, 0.25, 0.5):
        criterion = training(**{**both, "kd_alpha": alpha})
        torch.manual_seed(1)
        loss, _, log = criterion(student, batch)
        losses[alpha] = loss.item()
    markings = losses[0.0]
    for alpha in (0.25, 0.5):
        expected = (1 - alpha) * markings + alpha * log["kd_loss"].item()
        assert losses[alpha] == pytest.approx(expected, rel=1e-5)


def test_the_teachers_hypotheses_come_with_gold(data, store, tmp_path):
    """The task puts gold beside them, though no gold loss asks for it."""
    run = ["--task", "translation_seqkd", "--pseudo-targets", store, "--kd-targets", "best"]
    loss = ["--criterion", "distill", "--nll-weighting", "contrastive", "--kd-alpha", 0]
    signs = ["--nll-correct-weight", 1]
    losses = []
    for incorrect in (1, -0.5):
        flags = [*run, *loss, *signs, "--nll-incorrect-weight", incorrect, "--max-update", 1]
        log = train(data, tmp_path / str(incorrect), *flags)
        losses.append(float(logged(log, "train")[-1]["train_loss"]))
    assert losses[1] < losses[0] - 0.1


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"sentence_weighting": "paced", "kd_prefixes": "student"},
            "--sentence-weighting is paced with --kd-prefixes student: it looks at how well",
        ),
        (
            {"nll_weighting": "contrastive"},
            "--nll-weighting is contrastive, but it compares hypotheses with gold",
        ),
        (
            {"nll_weighting": "contrastive", "kd_prefixes": "student", "kd_alpha": 1.0},
            "--nll-weighting is contrastive, but with --kd-alpha 1.0",
        ),
        (
            {"nll_correct_weight": 0.3},
            "--nll-correct-weight is 0.3, but nothing uses it.*--nll-weighting contrastive",
        ),
        (
            {**MARKINGS, "kd_prefixes": "interleaved"},
            "--teacher-path is None, expected a checkpoint",
        ),
        (
            {**MARKINGS, **STUDENT_TEXT, "kd_student_divergence": "tvd"},
            "--kd-student-divergence is tvd, but with --kd-alpha 0.0 .* nothing is compared",
        ),
        ({"sentence_success_power": 2.0}, "it belongs to --sentence-weighting paced"),
    ],
)
def test_bad_configuration(training, values, message):
    with pytest.raises(ValueError, match=message):
        training(**values)
