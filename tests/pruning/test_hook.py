"""Pruning in training, by the real commands."""

import re

import pytest
import torch
from conftest import HALF, LSTM, RESUMES, TINY, USER_DIR, logged, ranks, train
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import OmegaConf
from processes import fairseq

from fairseq_seqkd.models.checkpoints import read_checkpoint
from fairseq_seqkd.models.parameters import count_nonzero, fraction_of_zeros, parameters_of
from fairseq_seqkd.pruning.hook import PruningConfig, PruningMixin, build_pruner
from fairseq_seqkd.pruning.weights import Weights

TASK = ["--task", "translation_seqkd", "--criterion", "label_smoothed_cross_entropy"]
SHARED = [*TINY, "--share-all-embeddings"]
DECAY = ["--weight-decay", "0.1"]


def model_of(path):
    return parameters_of(read_checkpoint(str(path))["model"])


def zeros_of(model):
    return {name: tensor == 0 for name, tensor in Weights(model).matrices.items()}


def sparsity_of(model):
    return fraction_of_zeros(Weights(model).matrices)


@pytest.fixture(scope="module")
def joined(text, tmp_path_factory):
    """A data-bin with one dictionary for both sides."""
    folder = tmp_path_factory.mktemp("joined") / "data-bin"
    pair = ["--source-lang", "src", "--target-lang", "tgt", "--joined-dictionary"]
    splits = ["--trainpref", text / "train", "--validpref", text / "valid"]
    fairseq("preprocess", *pair, *splits, "--destdir", folder)
    return folder


@pytest.mark.parametrize(
    "model, mode",
    [
        (SHARED, []),
        (SHARED, ["--optimizer", "nag", "--momentum", "0.9"]),
        (SHARED, ["--update-freq", "2"]),
        (LSTM, []),
        pytest.param(SHARED, ["--fp16", "--fp16-no-flatten-grads"], marks=HALF),
        pytest.param(SHARED, ["--memory-efficient-fp16"], marks=HALF),
        pytest.param(SHARED, ["--amp"], marks=HALF),
        pytest.param(LSTM, ["--amp"], marks=HALF),
    ],
)
def test_what_is_pruned_stays_at_zero_for_fifty_updates(joined, tmp_path, model, mode):
    prune = ["--prune-sparsity", "0.8", "--prune-start-update", "5", "--max-update", "56"]
    save = ["--save-interval-updates", "6", "--disable-validation", *DECAY, "--clip-norm", "1"]
    log = train(joined, tmp_path, *TASK, *prune, *save, *mode, model=model)
    assert "pruned after 5 updates" in log
    (early,) = tmp_path.glob("checkpoint_*_6.pt")
    pruned, later = model_of(early), model_of(tmp_path / "checkpoint_last.pt")
    assert sparsity_of(pruned) == pytest.approx(0.8, abs=1e-4)
    stayed = 0
    for name, zero in zeros_of(pruned).items():
        assert (later[name][zero] == 0).all(), name
        stayed += int((later[name][~zero] == pruned[name][~zero]).sum())
    # Half floats may come back to where they were.
    assert stayed <= (
        0.01 * count_nonzero(pruned) if any("fp16" in flag for flag in mode) else 0
    )
    assert sparsity_of(later) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("mode", [[], pytest.param(["--memory-efficient-fp16"], marks=HALF)])
@RESUMES
def test_ten_updates_equal_five_resume_five(joined, tmp_path, mode):
    run = [
        *[*TASK, *mode, *DECAY, "--max-update", "10", "--save-interval-updates", "5"],
        *["--prune-sparsity", "0.7", "--prune-schedule", "cubic", "--prune-start-update", "1"],
        *["--prune-end-update", "8", "--prune-every", "2"],
    ]
    train(joined, tmp_path / "unbroken", *run, model=SHARED)
    (half,) = (tmp_path / "unbroken").glob("checkpoint_*_5.pt")
    train(joined, tmp_path / "resumed", *run, "--restore-file", half, model=SHARED)
    unbroken, resumed = (
        model_of(tmp_path / name / "checkpoint_last.pt") for name in ("unbroken", "resumed")
    )
    assert 0.3 < sparsity_of(model_of(half)) < sparsity_of(unbroken)
    assert sparsity_of(unbroken) == pytest.approx(0.7, abs=1e-3)
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_two_ranks_agree(joined, tmp_path):
    run = [*TASK, "--prune-sparsity", "0.6", "--prune-start-update", "2", "--dropout", "0"]
    run += [*DECAY, "--max-update", "6"]
    train(joined, tmp_path / "one", *run, "--update-freq", "2")
    ranks(2, joined, tmp_path / "two", *run)
    one, two = (model_of(tmp_path / n / "checkpoint_last.pt") for n in ("one", "two"))
    for name, zero in zeros_of(one).items():
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
        # Sums of another order may exchange two weights at the threshold.
        assert ((two[name] == 0) != zero).sum() <= 2
    assert sparsity_of(two) == pytest.approx(0.6, abs=1e-4)


def test_retraining_on_pseudo_targets_with_word_kd(data, teacher, store, tmp_path):
    """And what is seen of it: in the log, and at the end beside the teacher's size."""
    flags = [
        *["--task", "translation_seqkd", "--criterion", "seq_kd", "--kd-alpha", "0.5"],
        *["--teacher-path", teacher, "--pseudo-targets", store, "--max-update", "6"],
        *["--prune-sparsity", "0.5", "--prune-schedule", "cubic", "--prune-every", "2"],
        *["--prune-end-update", "4", "--prune-scheme", "class_uniform"],
    ]
    log = train(data, tmp_path, *flags)
    assert "checkpoint_best.pt may become a model that is not pruned yet" in log
    assert re.findall(r"pruned after (\d+) updates: ([\d.]+) %", log) == [
        ("2", "43.75"),
        ("4", "50.00"),
    ]
    sparsities = [float(line["sparsity"]) for line in logged(log, "train_inner")]
    assert sparsities == [pytest.approx(x, abs=0.1) for x in (0.2, 0.2, 43.75, 43.75, 50, 50)]
    model, dense = (model_of(path) for path in (tmp_path / "checkpoint_last.pt", str(teacher)))
    left, size = count_nonzero(model), sum(tensor.numel() for tensor in model.values())
    (line,) = re.findall(r"\| all +\|(.*)\|", log)
    assert [cell.strip() for cell in line.split("|")][:2] == [f"{size:,}", f"{left:,}"]
    times = count_nonzero(dense) / left
    assert f"{times:.1f} times fewer than the teacher's {count_nonzero(dense):,}" in log
    assert float(logged(log, "train")[-1]["train_nonzero"]) == left


@pytest.mark.parametrize("scheme", ["ffn", "heads"])
def test_whole_units(data, tmp_path, scheme):
    flags = ["--prune-sparsity", "0.5", "--prune-scheme", scheme, "--max-update", "20"]
    log = train(data, tmp_path, *TASK, *flags, *DECAY)
    weights = Weights(model_of(tmp_path / "checkpoint_last.pt"), heads_of=lambda name: 2)
    units = getattr(weights, scheme)
    assert len(units) == (2 if scheme == "ffn" else 3)
    for group in units:
        assert group.zero_mask().sum() == group.number // 2
        for name, mask in group.parameter_masks(group.zero_mask()).items():
            assert not group.parts[name][0][mask].any()
    assert f"50.00 % of the {scheme} are zero (each of {len(units)} modules has" in log


def test_bfloat16_from_yaml(data, tmp_path):
    (tmp_path / "student.yaml").write_text(
        f"""# @package _group_
common: {{user_dir: {USER_DIR}, cpu: true, bf16: true, log_format: json, log_interval: 1}}
task: {{_name: translation_seqkd, data: {data}, prune_sparsity: 0.8, prune_start_update: 2}}
criterion: {{_name: word_kd, kd_alpha: 0.0}}
model:
  _name: transformer
  share_decoder_input_output_embed: true
  base_layers: 0
  encoder: {{embed_dim: 16, ffn_embed_dim: 16, layers: 1, attention_heads: 2}}
  decoder: {{embed_dim: 16, ffn_embed_dim: 16, layers: 1, attention_heads: 2}}
optimizer: {{_name: adam, adam_betas: "(0.9, 0.98)", weight_decay: 0.1}}
lr_scheduler: {{_name: inverse_sqrt, warmup_updates: 10}}
dataset: {{max_tokens: 300, required_batch_size_multiple: 1}}
optimization: {{max_update: 20, lr: [0.005]}}
checkpoint: {{save_dir: {tmp_path}, no_epoch_checkpoints: true}}
"""
    )
    fairseq(
        *["hydra_train", "--config-dir", tmp_path, "--config-name", "student"],
        f"hydra.run.dir={tmp_path}/hydra",
    )
    model = model_of(tmp_path / "checkpoint_last.pt")
    assert all(torch.equal(one, one.bfloat16().float()) for one in model.values())
    assert sparsity_of(model) == pytest.approx(0.8, abs=1e-3)


def test_a_pruned_model_is_trained_on_with_its_zeros(data, tmp_path):
    prune = ["--prune-sparsity", "0.8"]
    train(data, tmp_path / "first", *TASK, *prune, "--max-update", "3")
    path = tmp_path / "first" / "checkpoint_last.pt"
    more = ["--prune-start-update", "8", "--max-update", "10", "--finetune-from-model", path]
    log = train(data, tmp_path / "second", *TASK, "--prune-sparsity", "0.9", *more)
    seen = {float(line["sparsity"]) for line in logged(log, "train_inner")}
    assert seen == {80.0, 90.0}
    first, second = (model_of(tmp_path / n / "checkpoint_last.pt") for n in ("first", "second"))
    for name, zero in zeros_of(first).items():
        assert (second[name][zero] == 0).all()
    refused = train(
        *[data, tmp_path / "third", *TASK, "--prune-sparsity", "0.5", "--max-update", "2"],
        *["--finetune-from-model", path],
        fails=True,
    )
    assert "--prune-sparsity is 0.5, but 0.800 of the model is zero already" in refused
    assert not list((tmp_path / "third").glob("*.pt"))


def test_a_training_that_is_gone_on_with_is_pruned_late(data, tmp_path):
    """--prune-start-update is over when the flags are given."""
    train(data, tmp_path, *TASK, "--max-update", "3")
    log = train(data, tmp_path, *TASK, "--prune-sparsity", "0.8", "--max-update", "5")
    assert "pruned after 3 updates: 80.00 %" in log
    assert sparsity_of(model_of(tmp_path / "checkpoint_last.pt")) == pytest.approx(
        0.8, abs=1e-3
    )


def test_a_training_that_ends_before_pruning_does(data, tmp_path):
    flags = ["--prune-sparsity", "0.8", "--prune-schedule", "cubic", "--prune-every", "1"]
    log = train(data, tmp_path, *TASK, *flags, "--prune-end-update", "500", "--max-epoch", "1")
    assert re.search(r"training ended after \d+ updates, before all that --prune-sparsity", log)
    assert 0 < sparsity_of(model_of(tmp_path / "checkpoint_last.pt")) < 0.2


def test_the_best_checkpoint_is_a_pruned_one(data, tmp_path):
    flags = ["--prune-sparsity", "0.8", "--prune-start-update", "6", "--max-update", "8"]
    more = ["--validate-interval-updates", "2", "--validate-after-updates", "6"]
    log = train(data, tmp_path, *TASK, *flags, *more)
    assert "may become a model that is not pruned yet" not in log
    assert sparsity_of(model_of(tmp_path / "checkpoint_best.pt")) == pytest.approx(
        0.8, abs=1e-3
    )


class AnyTask(PruningMixin, TranslationTask):
    """A task as a user of the mixin writes it."""


def settings(**values):
    common = {"max_update": 100, "use_bmuf": False, "ddp_backend": "pytorch_ddp"}
    common.update(validate_after_updates=0, disable_validation=False)
    values = {"prune_sparsity": 0.5, **common, "zero_sharding": "none", **values}
    return OmegaConf.structured(PruningConfig(**values))


def test_any_task_has_the_hook_by_the_mixin(data):
    cfg = OmegaConf.merge(
        OmegaConf.create(OmegaConf.to_container(settings())),
        OmegaConf.create({"data": str(data), "source_lang": "src", "target_lang": "tgt"}),
    )
    cfg = OmegaConf.merge(
        {k: v for k, v in vars(TranslationConfig()).items() if not str(v).startswith("${")}, cfg
    )
    cfg.required_seq_len_multiple = 1
    task = AnyTask.setup_task(cfg)
    assert task.pruner.sparsity == 0.5


class TestErrors:
    @pytest.mark.parametrize(
        "values, message",
        [
            ({"prune_sparsity": 1.0}, "--prune-sparsity is 1.0, expected a number from 0 to"),
            ({"prune_sparsity": -0.1}, "--prune-sparsity is -0.1, expected"),
            (
                {"prune_sparsity": None, "prune_skip": "embed"},
                "--prune-skip is embed, but nothing is pruned: expected --prune-sparsity",
            ),
            (
                {"prune_schedule": "cubic"},
                "--prune-end-update is 0, expected the update at which pruning ends",
            ),
            (
                {"prune_schedule": "cubic", "prune_end_update": 5, "prune_start_update": 5},
                "--prune-end-update is 5, expected an update after --prune-start-update",
            ),
            (
                {"prune_schedule": "cubic", "prune_end_update": 100},
                "--prune-end-update is 100, expected below --max-update, which is 100",
            ),
            (
                {"prune_start_update": 200},
                "--prune-start-update is 200, expected below --max-update, which is 100",
            ),
            (
                {"prune_end_update": 50},
                "--prune-end-update is 50, but nothing uses it: it belongs to --prune-schedule",
            ),
            ({"ddp_backend": "fully_sharded"}, "--ddp-backend is fully_sharded, in which"),
            ({"ddp_backend": "slowmo"}, "--ddp-backend is slowmo"),
            ({"zero_sharding": "os"}, "--zero-sharding is os"),
            ({"use_bmuf": True}, "--use-bmuf is True"),
        ],
    )
    def test_flags(self, values, message):
        with pytest.raises(ValueError, match=message):
            build_pruner(settings(**values))

    def test_of_the_command(self, data, tmp_path):
        for flags, message in (
            (["--prune-scheme", "l1"], "argument --prune-scheme: invalid choice: 'l1'"),
            (["--prune-skip", "."], "--prune-skip .* is '.', which is found in all names"),
        ):
            run = [*TASK, "--prune-sparsity", "0.5", *flags, "--max-update", "2"]
            assert re.search(message, train(data, tmp_path, *run, fails=True))
            assert not list(tmp_path.glob("*.pt"))

    def test_heads_of_an_lstm(self, data, tmp_path):
        flags = ["--prune-sparsity", "0.5", "--prune-scheme", "heads", "--max-update", "2"]
        log = train(data, tmp_path, *TASK, *flags, model=LSTM, fails=True)
        assert "the pruning scheme is heads, but the model has none" in log


def test_without_flags_nothing_is_pruned(word_kd_student):
    folder, log = word_kd_student
    assert "sparsity" not in log
    assert sparsity_of(model_of(folder / "checkpoint_last.pt")) < 0.01
