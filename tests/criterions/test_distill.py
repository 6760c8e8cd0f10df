import math

import numpy as np
import pytest
import torch
from conftest import lprobs_of, make_cache
from fairseq import criterions, utils
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
)
from fairseq.models import BaseFairseqModel
from omegaconf import OmegaConf

from fairseq_seqkd.cache.store import DistributionCache, SentenceTopK, hash_of, record_dtype
from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.criterions.seq_inter import SeqInterConfig
from fairseq_seqkd.criterions.seq_kd import SeqKDConfig
from fairseq_seqkd.criterions.word_kd import WordKDConfig
from fairseq_seqkd.databin import describe_dictionary
from fairseq_seqkd.losses.support import top_k
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.teacher import LazyLogits, load_teacher

LN2 = math.log(2)


def build(task, config=DistillConfig, **values):
    """A criterion as fairseq would build it from flags."""
    common = {"sentence_avg": False, "seed": 1, "max_update": 10}
    cfg = OmegaConf.structured(config(**{**common, **values}))
    return DistillCriterion(task, cfg)


@pytest.fixture
def student(word_kd_student):
    folder, _ = word_kd_student
    return load_models(str(folder / "checkpoint_last.pt"))[0][0].eval()


class Fixed(BaseFairseqModel):
    """A model whose logits are given: what a hand-worked example needs."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, **net_input):
        return (self.logits, None)

    def get_normalized_probs(self, net_output, log_probs, sample=None):
        return torch.log_softmax(net_output[0], -1)


class FixedTeacher:
    def __init__(self, logits):
        self.fixed = torch.tensor(logits)

    def inputs_of(self, sample, training):
        return sample["net_input"]

    def logits(self, net_input):
        return LazyLogits([(self.fixed.flatten(0, 1), lambda logits: logits)])


@pytest.fixture(params=["teacher", "cache"])
def source(request, teacher, data, tmp_path_factory):
    """The flags that name the teacher of the validation set, or its cache."""
    if request.param == "teacher":
        return {"teacher_path": str(teacher)}
    root = tmp_path_factory.mktemp("cache") / "cache"
    make_cache(root, data, teacher, "--split", "valid", "--top-k", 336)
    return {"kd_cache": str(root), "train_subset": "valid"}


@pytest.fixture(params=["teacher", "cache"])
def fixed(request, task, monkeypatch, tmp_path):
    """`fixed_loss` with a live teacher, or with a cache of its distributions."""

    def loss(student, teacher, target, **values):
        if request.param == "teacher":
            return fixed_loss(task, monkeypatch, student, teacher, target, **values)
        cache_fixed(
            tmp_path / "cache", task, teacher, target, values.get("kd_temperature", 1.0)
        )
        values.update(kd_cache=str(tmp_path / "cache"), train_subset="valid")
        return loss_and_gradient(build(task, **values), student, target)

    loss.precision = 1e-6 if request.param == "teacher" else 1e-3
    return loss


def cache_fixed(root, task, logits, target, temperature):
    """A cache of given logits, all of them."""
    logits, target = torch.tensor(logits), torch.tensor(target)
    target_mask = target.ne(task.target_dictionary.pad())
    top = top_k(logits[target_mask], logits.size(-1), temperature)
    rows = np.empty(len(top.symbols), record_dtype(logits.size(-1), logits.size(-1)))
    for name, values in top._asdict().items():
        rows[name] = values.half() if name != "symbols" else values
    ends = target_mask.sum(-1).cumsum(0).tolist()
    sentences = [
        SentenceTopK(
            id_, hash_of(*[target[id_][target_mask[id_]].numpy()] * 2), rows[begin:end]
        )
        for id_, (begin, end) in enumerate(zip([0, *ends], ends))
    ]
    cache = DistributionCache(str(root))
    data = {"split": "valid", "sentences": len(sentences), "sha256": {}}
    cache.create(
        {
            "data": data,
            "dictionary": describe_dictionary(task.target_dictionary),
            "teacher": [],
            "temperature": float(temperature),
            "top_k": logits.size(-1),
            "vocabulary": logits.size(-1),
            "chunk_size": 512,
        }
    )
    cache.write_chunk(0, sentences)


def fixed_loss(task, monkeypatch, student, teacher, target, **values):
    """(loss, gradient of the student's logits, what is logged) for given logits."""
    criterion = build(task, teacher_path="fixed", **values)
    monkeypatch.setattr(criterion, "get_teacher", lambda *_: FixedTeacher(teacher))
    return loss_and_gradient(criterion, student, target)


def loss_and_gradient(criterion, student, target):
    model = Fixed(student)
    target = torch.tensor(target)
    n_tokens = int(target.ne(criterion.padding_idx).sum())
    ids = torch.arange(len(target))
    inputs = {"src_tokens": target}
    sample = {"id": ids, "net_input": inputs, "target": target, "ntokens": n_tokens}
    loss, _, log = criterion(model, sample)
    loss.backward()
    return loss.item(), model.logits.grad, log


def test_word_kd_hand_worked(fixed):
    # One position; p = (1/8, 1/8, 1/4, 1/2), q = (1/2, 1/8, 1/8, 1/4), target 3:
    # NLL = log 2; KL(q || p) = 1/2 log 4 + 1/8 log 1/2 + 1/4 log 1/2 = 5/8 log 2.
    p, q = [[[-3.0, -3, -2, -1]]], [[[-1.0, -3, -3, -2]]]
    student, teacher = (np.array(x, dtype=np.float32) * LN2 for x in (p, q))
    loss, _, log = fixed(student.tolist(), teacher.tolist(), [[3]], kd_alpha=0.5)
    assert loss == pytest.approx(0.5 * LN2 + 0.5 * 5 / 8 * LN2, abs=fixed.precision)
    assert log["kd_loss"].item() == pytest.approx(5 / 8 * LN2, abs=fixed.precision)
    assert log["n_agree"].item() == 0


@pytest.mark.parametrize("alpha, temperature, smoothing", [(0.5, 1, 0), (0.9, 2, 0.1)])
def test_equals_float64_computation(task, fixed, alpha, temperature, smoothing):
    rng = np.random.default_rng(1)
    student, teacher = rng.standard_normal((2, 2, 3, 9)).astype(np.float32)
    target = [[4, 5, 2], [7, 2, task.target_dictionary.pad()]]
    loss, _, _ = fixed(
        *(student.tolist(), teacher.tolist(), target),
        kd_alpha=alpha,
        kd_temperature=temperature,
        label_smoothing=smoothing,
    )
    expected = 0.0
    for row in range(2):
        for column in range(3 - row):
            log_p = log_softmax64(student[row, column])
            p_T = log_softmax64(student[row, column] / temperature)
            q_T = log_softmax64(teacher[row, column] / temperature)
            label = np.full(9, smoothing / 8)
            label[target[row][column]] = 1 - smoothing
            kl = (np.exp(q_T) * (q_T - p_T)).sum()
            nll = -(label * log_p).sum()
            expected += (1 - alpha) * nll + alpha * temperature**2 * kl
    assert loss == pytest.approx(expected, rel=fixed.precision)


def log_softmax64(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum())


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("target", [0, 3])
@pytest.mark.parametrize("extreme", [1e4, -1e4, -math.inf])
def test_extreme_logits_give_no_nan(fixed, extreme, target, alpha):
    student, teacher = [[[extreme, 0.0, 1, 2]]], [[[0.0, extreme, 1, 2]]]
    loss, gradient, _ = fixed(student, teacher, [[target]], kd_alpha=alpha)
    assert not math.isnan(loss)
    assert not gradient.isnan().any()


def test_teacher_equal_to_student(task, source, teacher, batch):
    model = load_teacher(str(teacher)).models[0]
    criterion = build(task, **source, label_smoothing=0.1)
    stock = LabelSmoothedCrossEntropyCriterion(task, False, 0.1)
    _, _, log = criterion(model, batch)
    _, _, stock_log = stock(model, batch)
    precision = 1e-4 if "teacher_path" in source else 1e-3 * batch["ntokens"]
    assert log["kd_loss"].item() == pytest.approx(0, abs=precision)
    assert log["nll_loss"].item() == pytest.approx(stock_log["nll_loss"].item())
    assert log["n_agree"].item() == batch["ntokens"]  # also of a cache, which keeps the order


def test_without_teacher_it_is_stock_label_smoothing(task, student, batch):
    loss, size, log = build(task, kd_alpha=0.0, label_smoothing=0.1, report_accuracy=True)(
        student, batch
    )
    stock = LabelSmoothedCrossEntropyCriterion(task, False, 0.1, report_accuracy=True)
    stock_loss, stock_size, stock_log = stock(student, batch)
    assert loss.item() == pytest.approx(stock_loss.item(), rel=1e-6)
    assert size == stock_size
    assert log.keys() == stock_log.keys()
    for key, value in stock_log.items():
        assert utils.item(log[key]) == pytest.approx(utils.item(value), rel=1e-6)


def test_padding_columns_leave_the_loss_unchanged(task, source, student, batch):
    criterion = build(task, **source)
    pad = torch.full((batch["target"].size(0), 3), task.target_dictionary.pad())
    wide = {**batch, "target": torch.cat([batch["target"], pad], 1)}
    wide["net_input"] = {**batch["net_input"]}
    wide["net_input"]["prev_output_tokens"] = torch.cat(
        [batch["net_input"]["prev_output_tokens"], pad], 1
    )
    loss, wide_loss = (criterion(student, sample)[0].item() for sample in (batch, wide))
    assert wide_loss == pytest.approx(loss, rel=1e-5)


def test_loss_of_two_sentences_is_the_sum_of_their_losses(task, source, student):
    criterion = build(task, **source)
    dataset = task.dataset("valid")
    one, two, both = (
        criterion(student, dataset.collater([dataset[i] for i in ids]))[0].item()
        for ids in ([3], [4], [3, 4])
    )
    assert both == pytest.approx(one + two, rel=1e-5)


def test_step_in_train_mode_leaves_the_teacher_alone(task, teacher, student, batch):
    criterion = build(task, teacher_path=str(teacher))
    criterion.train()
    student.train()
    optimizer = torch.optim.Adam([*student.parameters(), *criterion.parameters()], lr=0.1)
    frozen = criterion.get_teacher(student, torch.device("cpu"))
    criterion.train()
    before = lprobs_of(frozen, batch["net_input"])
    criterion(student, batch)[0].backward()
    optimizer.step()
    assert torch.equal(lprobs_of(frozen, batch["net_input"]), before)
    assert criterion.get_teacher(student, torch.device("cpu")) is frozen
    assert not lprobs_of(frozen, batch["net_input"]).requires_grad
    assert all(p.grad is None for m in frozen.models for p in m.parameters())
    assert list(criterion.parameters()) == [] and criterion.state_dict() == {}


def test_gold_weight_mixes_two_passes(task, student, batch):
    other = {**batch, "target": batch["target"].roll(1, 0)}
    other["net_input"] = {
        **batch["net_input"],
        "prev_output_tokens": batch["net_input"]["prev_output_tokens"].roll(1, 0),
    }
    nll = build(task, kd_alpha=0.0)
    apart = [nll(student, sample)[0].item() for sample in (batch, other)]
    gold = {
        "target": other["target"],
        "prev_output_tokens": other["net_input"]["prev_output_tokens"],
    }
    loss = build(task, kd_alpha=0.0, gold_weight=0.3)(student, {**batch, "gold": gold})[0]
    assert loss.item() == pytest.approx(0.7 * apart[0] + 0.3 * apart[1], rel=1e-5)


def test_a_row_without_gold_is_left_out_of_its_loss_and_counted(task, student, batch):
    """Its target is padding alone, and its decoder input EOS and padding."""
    pad, eos = task.tgt_dict.pad(), task.tgt_dict.eos()
    gold = {
        "target": batch["target"].clone(),
        "prev_output_tokens": batch["net_input"]["prev_output_tokens"].clone(),
    }
    gold["target"][1] = pad
    gold["prev_output_tokens"][1] = pad
    gold["prev_output_tokens"][1, 0] = eos
    criterion = build(task, kd_alpha=0.0, gold_weight=0.3)
    loss, _, log = criterion(student, {**batch, "gold": gold})
    assert log["n_without_gold"] == 1
    by_row = []
    for row in range(len(batch["target"])):
        target = batch["target"].clone()
        target[[i for i in range(len(target)) if i != row]] = pad
        by_row.append(build(task, kd_alpha=0.0)(student, {**batch, "target": target})[0])
    expected = 0.7 * sum(by_row) + 0.3 * (sum(by_row) - by_row[1])
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    student.train()  # in eval mode torch 1.12 has no gradient of an encoder layer
    criterion(student, {**batch, "gold": gold})[0].backward()
    student.eval()
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())
    student.zero_grad()
    whole = {**gold, "target": batch["target"]}
    assert criterion(student, {**batch, "gold": whole})[2]["n_without_gold"] == 0
    assert criterion(student, batch)[2]["n_without_gold"] == 0
    assert "n_without_gold" not in build(task, kd_alpha=0.0)(student, batch)[2]


def test_gold_weight_runs_the_encoder_once(task, student, batch):
    calls = []
    student.encoder.register_forward_hook(lambda *_: calls.append(1))
    gold = {
        "target": batch["target"],
        "prev_output_tokens": batch["net_input"]["prev_output_tokens"],
    }
    build(task, kd_alpha=0.0, gold_weight=0.5)(student, {**batch, "gold": gold})
    assert calls == [1]


def test_hooks_do_not_pile_up(task, student, batch):
    build(task, kd_alpha=0.0)(student, batch)
    assert not student.encoder._forward_hooks


def test_same_keys_in_training_and_validation(task, source, student, batch):
    criterion = build(task, **source, report_accuracy=True)
    logs = [criterion.train(mode)(student, batch)[2] for mode in (True, False)]
    assert logs[0].keys() == logs[1].keys()


def test_validation_without_the_teacher_warns_once(task, student, batch, caplog):
    criterion = build(task, teacher_path="deleted.pt").eval()
    for _ in range(2):
        log = criterion(student, batch)[2]
        assert log["kd_loss"].item() == 0
    assert caplog.text.count("kd_loss is 0") == 1


def test_training_without_the_teacher_stops(task, student, batch):
    with pytest.raises(FileNotFoundError, match="deleted.pt"):
        build(task, teacher_path="deleted.pt").train()(student, batch)


def test_logged_in_bits_and_percent():
    from fairseq.logging import metrics

    log = {"loss": 8 * LN2, "nll_loss": 4 * LN2, "ntokens": 4, "sample_size": 4}
    with metrics.aggregate() as logged:
        DistillCriterion.reduce_metrics([{**log, "kd_loss": 2 * LN2, "n_agree": 3}] * 2)
    values = logged.get_smoothed_values()
    assert (values["loss"], values["nll_loss"], values["ppl"]) == (2, 1, 2)
    assert (values["kd_loss"], values["agreement"]) == (0.5, 75)


@pytest.mark.parametrize(
    "config, targets, alpha, gold",
    [
        (DistillConfig, "gold", 0.5, 0),
        (WordKDConfig, "gold", 0.5, 0),
        (SeqKDConfig, "best", 0, 0),
        (SeqInterConfig, "closest", 0, 0),
    ],
)
def test_presets_are_the_papers(config, targets, alpha, gold):
    preset = config()
    assert (preset.kd_targets, preset.kd_alpha, preset.gold_weight) == (targets, alpha, gold)


@pytest.mark.parametrize("name", ["distill", "word_kd", "seq_kd", "seq_inter"])
def test_registered(name):
    assert issubclass(criterions.CRITERION_REGISTRY[name], DistillCriterion)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"kd_alpha": 1.5}, "--kd-alpha is 1.5, expected a number from 0 to 1"),
        ({"kd_alpha": -0.1}, "--kd-alpha is -0.1"),
        ({"gold_weight": 2.0}, "--gold-weight is 2.0"),
        ({"kd_temperature": 0.0}, "--kd-temperature is 0.0, expected a number above 0"),
        ({"kd_temperature": -1.0}, "--kd-temperature is -1.0"),
        ({"label_smoothing": 1.0}, "--label-smoothing is 1.0"),
        ({}, "--teacher-path is None, expected a checkpoint"),
        (
            {"kd_targets": "best", "kd_alpha": 0.0},
            "--kd-targets best .* TranslationTask has none.*translation_seqkd",
        ),
    ],
)
def test_bad_configuration(task, values, message):
    with pytest.raises(ValueError, match=message):
        build(task, **values)
