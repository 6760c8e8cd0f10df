"""The general criterion away from its defaults: other prefixes, divergences and weightings."""

import argparse

import pytest
import torch
from conftest import lprobs_of
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
)
from fairseq.dataclass.utils import gen_parser_from_dataclass
from omegaconf import OmegaConf

from fairseq_seqkd.criterions.config import AXES, DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.criterions.gkd import GKDConfig, GKDCriterion
from fairseq_seqkd.criterions.imit_kd import ImitKDConfig, ImitKDCriterion
from fairseq_seqkd.losses.statistics import Masks
from fairseq_seqkd.teacher import load_teacher

STUDENT_ROWS = [True, False, True, False, False, True]  # see ``only_some_rows``
TRAINED = {"finetune_from_model": "student.pt", "restore_file": "checkpoint_last.pt"}
COMMON = {**TRAINED, "sentence_avg": False, "seed": 1, "max_update": 10}


@pytest.fixture
def build(task, teacher):
    def build(criterion=DistillCriterion, config=DistillConfig, **values):
        values = {**COMMON, "teacher_path": str(teacher), **values}
        return criterion(task, OmegaConf.structured(config(**values)))

    return build


def only_some_rows(criterion, monkeypatch):
    """Let the student generate the rows of STUDENT_ROWS, whatever the coins say."""
    rows = criterion.method.prefix_policy.row_rule
    monkeypatch.setattr(rows, "select", lambda *_: (torch.tensor(STUDENT_ROWS), 0.5))
    return criterion.train()


def scored(task, student, teacher, criterion, batch):
    """(student's log-probs, teacher's, targets, is of a student row) of every position."""
    frozen = load_teacher(str(teacher))
    sample, student_rows_mask, _ = criterion.method.prefix_policy(
        batch, student, frozen, task, criterion.current_step()
    )
    assert student_rows_mask.tolist() == STUDENT_ROWS
    inputs, target = sample["net_input"], sample["target"]
    lprobs = student.get_normalized_probs(student(**inputs), log_probs=True)
    target_mask = target.ne(task.target_dictionary.pad())
    of_student = student_rows_mask[:, None].expand_as(target)[target_mask]
    teacher_lprobs = lprobs_of(frozen, inputs)[target_mask]
    return lprobs[target_mask], teacher_lprobs, target[target_mask], of_student


def nll(lprobs, target):
    return -lprobs.gather(-1, target[:, None]).squeeze(-1)


def test_imit_kd_opt(build, task, student, teacher, batch, monkeypatch):
    """Student rows get the teacher's best token as label, the others keep their targets."""
    criterion = only_some_rows(build(ImitKDCriterion, ImitKDConfig), monkeypatch)
    p, q, target, of_student = scored(task, student, teacher, criterion, batch)
    expected = nll(p, torch.where(of_student, q.argmax(-1), target)).sum()
    loss, size, log = criterion(student, batch)
    torch.testing.assert_close(loss, expected)
    assert size == log["ntokens"] == len(of_student)
    assert log["n_data_targets"] == (~of_student).sum()
    torch.testing.assert_close(log["nll_loss"], nll(p, target)[~of_student].sum().detach())
    torch.testing.assert_close(log["kd_loss"], nll(p, q.argmax(-1)).sum().detach())


def test_imit_kd_full(build, task, student, teacher, batch, monkeypatch):
    """All rows learn the teacher's distribution."""
    criterion = build(ImitKDCriterion, ImitKDConfig, imit_kd_loss="full")
    criterion = only_some_rows(criterion, monkeypatch)
    p, q, _, _ = scored(task, student, teacher, criterion, batch)
    expected = (q.exp() * (q - p)).nan_to_num(0).sum()
    torch.testing.assert_close(criterion(student, batch)[0], expected)


def test_student_rows_have_no_target_beside_the_divergence(
    build, task, student, teacher, batch, monkeypatch
):
    settings = {"kd_prefixes": "student", "kd_divergence": "tvd", "kd_alpha": 0.3}
    criterion = only_some_rows(build(**settings), monkeypatch)
    p, q, target, of_student = scored(task, student, teacher, criterion, batch)
    tvd = 0.5 * (p.exp() - q.exp()).abs().sum(-1)
    expected = torch.where(of_student, tvd, 0.7 * nll(p, target) + 0.3 * tvd).sum()
    torch.testing.assert_close(criterion(student, batch)[0], expected)


def test_another_divergence_on_student_rows(build, task, student, teacher, batch, monkeypatch):
    settings = {
        "kd_prefixes": "student",
        "kd_divergence": "forward_kl",
        "kd_student_divergence": "reverse_kl",
        "kd_alpha": 1.0,
    }
    criterion = only_some_rows(build(**settings), monkeypatch)
    p, q, _, of_student = scored(task, student, teacher, criterion, batch)
    p, q = p.clamp(min=-1e9), q.clamp(min=-1e9)
    forward, reverse = (q.exp() * (q - p)).sum(-1), (p.exp() * (p - q)).sum(-1)
    expected = torch.where(of_student, reverse, forward).sum()
    torch.testing.assert_close(criterion(student, batch)[0], expected)


def test_gold_weight_learns_the_target_that_student_rows_replaced(build, student, batch):
    settings = {"kd_prefixes": "student", "kd_schedule": "constant", "kd_beta": 0.0}
    on_student_rows = build(**settings).train()(student, batch)[0]
    mixed = build(**settings, gold_weight=0.25).train()(student, batch)[0]
    gold = build(kd_alpha=0.0)(student, batch)[0]
    torch.testing.assert_close(mixed, 0.75 * on_student_rows + 0.25 * gold)


@pytest.mark.parametrize("alpha, gold_weight", [(0.4, 0.0), (1.0, 0.25)])
def test_uniform_weights_are_one_at_compared_positions(build, alpha, gold_weight):
    criterion = build(kd_alpha=alpha, gold_weight=gold_weight)
    compared_mask = torch.tensor([True, False, True, True])
    masks = Masks(~compared_mask, torch.tensor([False, False, True, True]), compared_mask)
    weights = criterion.kd_weights(None, masks)
    expected = [(1 - gold_weight) * weight for weight in (alpha, 0, 1, 1)]
    assert weights.tolist() == pytest.approx(expected)


def test_weighting_counts_for_the_divergence_only(build, task, student, teacher, batch):
    criterion = build(kd_weighting="selective", kd_alpha=0.4)
    target_mask = batch["target"].ne(task.target_dictionary.pad())
    inputs, target = batch["net_input"], batch["target"][target_mask]
    p = student.get_normalized_probs(student(**inputs), log_probs=True)[target_mask]
    q = lprobs_of(load_teacher(str(teacher)), inputs)[target_mask]
    kl = (q.exp() * (q - p)).nan_to_num(0).sum(-1)
    kept = nll(p, target).topk(-(-len(target) // 2)).indices
    expected = 0.6 * nll(p, target).sum() + 0.4 * kl[kept].sum()
    torch.testing.assert_close(criterion(student, batch)[0], expected)


@pytest.mark.parametrize("leftover", ["tail", "renormalise", "drop"])
def test_top_k_of_the_vocabulary_is_the_vocabulary(build, student, batch, leftover):
    whole = build(kd_temperature=2.0)(student, batch)
    reduced = build(kd_temperature=2.0, kd_top_k=10**6, kd_leftover=leftover)(student, batch)
    torch.testing.assert_close(reduced[0], whole[0])
    for key, value in whole[2].items():
        assert float(reduced[2][key]) == pytest.approx(float(value), rel=1e-5)


def test_top_k_leaves_something_out(build, student, batch):
    whole, reduced = (build(kd_top_k=k)(student, batch)[2]["kd_loss"] for k in (None, 2))
    assert 0 < reduced < whole  # merging outcomes cannot add to a divergence


def test_validation_is_on_the_data(build, student, batch):
    criterion = build(ImitKDCriterion, ImitKDConfig, kd_schedule="constant", kd_beta=0.0)
    _, size, log = criterion.eval()(student, batch)
    stock = LabelSmoothedCrossEntropyCriterion(criterion.task, False, 0.0)
    torch.testing.assert_close(log["nll_loss"], stock(student, batch)[2]["nll_loss"])
    assert size == batch["ntokens"] and log["n_student_rows"] == 0


@pytest.mark.parametrize("prefixes", ["data", "student", "interleaved", "switch"])
def test_same_keys_at_every_step(build, student, batch, prefixes):
    criterion = build(kd_prefixes=prefixes)
    logs = [criterion.train(mode)(student, batch)[2] for mode in (True, False)]
    assert logs[0].keys() == logs[1].keys()


def test_beta_follows_the_updates(build, student, batch):
    criterion = build(kd_prefixes="student", kd_schedule="linear").train()
    betas = []
    for update in (0, 4, 10, 12):
        torch.manual_seed(COMMON["seed"] + update)  # as the trainer does
        betas.append(criterion(student, batch)[2]["beta"] / len(batch["id"]))
    assert betas == pytest.approx([1, 0.6, 0, 0])


def test_logged_in_percent_and_bits(build, student, batch):
    from fairseq.logging import metrics

    criterion = build(kd_prefixes="interleaved", kd_accept_topk=10**6).train()
    log = criterion(student, batch)[2]
    with metrics.aggregate() as logged:
        criterion.reduce_metrics([log, log])
    values = logged.get_smoothed_values()
    assert (values["student_rows"], values["accepted"], values["beta"]) == (100, 100, 0)
    assert values["student_length"] == pytest.approx(log["ntokens"] / 6, abs=1e-3)
    assert 0 < values["teacher_entropy"] < 20
    assert "nll_loss" not in values  # there was no row with a target


def preset(config):
    values = vars(config())
    return {key: str(value) for key, value in values.items() if key.startswith("kd_")}


def test_presets_are_the_papers():
    imit, gkd = preset(ImitKDConfig), preset(GKDConfig)
    assert (imit["kd_targets"], imit["kd_prefixes"]) == ("gold", "student")
    assert (gkd["kd_targets"], gkd["kd_prefixes"]) == ("gold", "student")
    assert (gkd["kd_divergence"], gkd["kd_alpha"]) == ("jsd", "1.0")


def test_gkds_parameters_of_student_prefixes(build):
    policy = build(GKDCriterion, GKDConfig).method.prefix_policy
    assert (policy.row_rule.coin, policy.token_rule.drawing.topk) == ("batch", -1)
    assert policy.row_rule.schedule(None) == 0.5 and not policy.needs_progress
    settings = {"kd_coin": "row", "kd_schedule": "linear"}
    policy = build(GKDCriterion, GKDConfig, **settings).method.prefix_policy
    assert (policy.row_rule.coin, policy.token_rule.drawing.topk) == ("row", -1)
    assert policy.needs_progress


@pytest.mark.parametrize("prefixes", ["data", "interleaved"])
def test_a_presets_own_parameters_are_not_held_against_the_user(build, prefixes):
    build(GKDCriterion, GKDConfig, kd_prefixes=prefixes)


def test_batch_statistics_are_of_weighted_positions(
    build, task, student, teacher, batch, monkeypatch
):
    settings = {"kd_prefixes": "student", "kd_alpha": 0.0, "kd_weighting": "selective"}
    criterion = only_some_rows(build(**settings), monkeypatch)
    p, q, target, of_student = scored(task, student, teacher, criterion, batch)
    kl = (q.exp() * (q - p)).nan_to_num(0).sum(-1)[of_student]
    kept = nll(p, target)[of_student].topk(-(-int(of_student.sum()) // 2)).indices
    expected = nll(p, target)[~of_student].sum() + kl[kept].sum()
    torch.testing.assert_close(criterion(student, batch)[0], expected)


def test_validation_without_a_weight_has_a_divergence_to_log(build, student, batch):
    criterion = build(kd_prefixes="student", kd_alpha=0.0, kd_divergence="decoupled").eval()
    assert criterion(student, batch)[2]["kd_loss"] > 0


def test_a_model_of_half_precision_is_compared_in_single(build, student, batch, monkeypatch):
    normalized = type(student).get_normalized_probs

    def half(*arguments, **options):
        return normalized(*arguments, **options).half()

    monkeypatch.setattr(type(student), "get_normalized_probs", half)
    assert build()(student, batch)[0].dtype == torch.float32


@pytest.mark.parametrize(
    "flags, divergence, alpha",
    [
        ({}, "hard", 0.0),
        ({"imit_kd_loss": "full"}, "forward_kl", 1.0),
        ({"kd_divergence": "tvd"}, "tvd", 0.0),
        ({"kd_alpha": 0.2}, "hard", 0.2),
    ],
)
def test_imit_kd_losses(build, flags, divergence, alpha):
    cfg = build(ImitKDCriterion, ImitKDConfig, **flags).cfg
    assert (str(cfg.kd_divergence), cfg.kd_alpha) == (divergence, alpha)


def test_gkd_runs_with_its_defaults(build, student, batch):
    assert build(GKDCriterion, GKDConfig).train()(student, batch)[0] > 0


def test_every_parameter_of_every_axis_is_a_flag():
    parser = argparse.ArgumentParser()
    gen_parser_from_dataclass(parser, DistillConfig())
    flags = set(parser.format_help().split())
    for axis in AXES:
        assert "--" + axis.name.replace("_", "-") in flags
        for name, (_, users) in axis.parameters().items():
            assert "--" + name.replace("_", "-") in flags
            assert all(user.startswith("--") for user in users)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"kd_top_k": 0}, "--kd-top-k is 0, expected a whole number above 0"),
        ({"kd_leftover": "drop"}, "--kd-leftover is drop, expected --kd-top-k or --kd-cache"),
        (
            {"kd_student_divergence": "tvd"},
            "--kd-student-divergence is tvd, but there are no rows for it",
        ),
        ({"kd_beta": 0.5}, "--kd-beta is 0.5, but nothing uses it.*--kd-schedule constant"),
        (
            {"kd_prefixes": "student", "kd_accept_topk": 3},
            "--kd-accept-topk is 3, but nothing uses it: .*--kd-prefixes interleaved",
        ),
        ({"kd_keep": 0.3}, "--kd-keep is 0.3, but nothing uses it.*selective"),
        (
            {"kd_prefixes": "student", "kd_beta": 0.5},
            "--kd-beta is 0.5, .*and this is --kd-prefixes student, --kd-schedule exponential",
        ),
        (
            {"kd_alpha": 0.0, "kd_divergence": "jsd"},
            "--kd-divergence is jsd, but with --kd-alpha 0.0 .* nothing is compared",
        ),
        ({"kd_alpha": 0.0, "kd_temperature": 2.0}, "--kd-temperature is 2.0, but with"),
        ({"kd_alpha": 0.0, "kd_top_k": 5}, "--kd-top-k is 5, but with --kd-alpha 0.0"),
        ({"kd_alpha": 0.0, "kd_head": 5}, "--kd-head is 5, but nothing uses it"),
        ({"kd_prefixes": "student", "gold_weight": 1.0}, "--gold-weight is 1, so that"),
        (
            {"kd_prefixes": "student", "max_update": 0},
            "--max-update is 0, but --kd-schedule needs to know",
        ),
        (
            {"kd_prefixes": "student", "teacher_path": None, "kd_alpha": 0.0},
            "--teacher-path is None, expected a checkpoint",
        ),
    ],
)
def test_bad_configuration(build, values, message):
    with pytest.raises(ValueError, match=message):
        build(**values)


@pytest.mark.parametrize(
    "values, warned",
    [
        ({}, "the student has random weights, and jsd on its own text"),
        ({"kd_divergence": "forward_kl"}, None),
        ({"kd_student_divergence": "skew_kl"}, "jsd and skew_kl on its own text"),
        ({"kd_prefixes": "data"}, None),
        ({"finetune_from_model": "student.pt"}, None),
        ({"restore_file": "student.pt"}, None),
    ],
)
def test_a_start_from_random_weights_is_warned_of(
    build, student, batch, values, warned, caplog
):
    """GKD and the others begin with a trained student: once, at the first update."""
    cold = {"finetune_from_model": None, "kd_divergence": "jsd", "kd_prefixes": "student"}
    criterion = build(kd_alpha=1.0, **{**cold, **values}).train()
    for update in (0, 0, 1):
        torch.manual_seed(1 + update)
        criterion(student, batch)
    found = [record.getMessage() for record in caplog.records if "random" in record.message]
    assert len(found) == (warned is not None)
    assert all(warned in message for message in found)
    assert not found or "--finetune-from-model" in found[0]


def test_a_resumed_training_is_not_warned_of(build, student, batch, caplog):
    torch.manual_seed(1 + 5)
    build(GKDCriterion, GKDConfig, finetune_from_model=None).train()(student, batch)
    assert "random weights" not in caplog.text
