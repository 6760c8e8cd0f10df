"""The real commands, end to end, each in processes of its own."""

import re
import shutil

import pytest
import torch
from conftest import (
    HALF,
    LSTM,
    RESUMES,
    TINY,
    TRAINING,
    USER_DIR,
    files,
    logged,
    make_cache,
    preprocess,
    ranks,
    train,
)
from processes import fairseq

from fairseq_seqkd.evaluate.measure import evaluate
from fairseq_seqkd.evaluate.settings import Settings

NO_DROPOUT = ["--dropout", "0"]
LM_SIZE = [
    *["--decoder-attention-heads", "2", "--decoder-embed-dim", "16"],
    *["--decoder-ffn-embed-dim", "16"],
]


def parameters(checkpoint):
    """The weights; upstream's models hold a buffer of uninitialised memory beside them."""
    model = torch.load(checkpoint)["model"]
    return {name: p for name, p in model.items() if name.endswith(("weight", "bias"))}


def assert_same(ours, theirs, **tolerance):
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **tolerance)


def word_kd(teacher):
    return ["--task", "translation", "--criterion", "word_kd", "--teacher-path", teacher]


def test_word_kd_logs_in_bits(word_kd_student):
    _, log = word_kd_student
    (last,) = logged(log, "train")[-1:]
    values = {key: float(last[f"train_{key}"]) for key in ("loss", "nll_loss", "kd_loss")}
    assert values["loss"] == pytest.approx(
        0.5 * values["nll_loss"] + 0.5 * values["kd_loss"], abs=2e-3
    )
    assert float(last["train_ppl"]) == pytest.approx(2 ** values["nll_loss"], rel=1e-2)
    assert 0 <= float(last["train_agreement"]) <= 100
    assert {"valid_kd_loss", "valid_agreement"} <= logged(log, "valid")[-1].keys()


def test_student_checkpoint_is_like_an_undistilled_one(
    data, teacher, word_kd_student, tmp_path
):
    folder, _ = word_kd_student
    stock = ["--task", "translation", "--criterion", "label_smoothed_cross_entropy"]
    train(data, tmp_path, *stock, "--max-update", "4")
    ours, theirs = (f / "checkpoint_last.pt" for f in (folder, tmp_path))
    assert {k: v.shape for k, v in parameters(ours).items()} == {
        k: v.shape for k, v in parameters(theirs).items()
    }
    assert len(torch.load(ours)["last_optimizer_state"]["state"]) == len(
        torch.load(theirs)["last_optimizer_state"]["state"]
    )
    # A few flags more in the configuration; a teacher in the file would be far more.
    assert abs(ours.stat().st_size - theirs.stat().st_size) < 8000 < teacher_bytes(teacher)


def test_language_modelling(text, tmp_path):
    fairseq(
        *["preprocess", "--only-source", "--destdir", tmp_path / "data"],
        *["--trainpref", text / "train.tgt", "--validpref", text / "valid.tgt"],
    )
    model = ["--arch", "transformer_lm", "--decoder-layers", "1", *LM_SIZE]
    task = ["--task", "language_modeling", "--tokens-per-sample", "32", "--max-update", "4"]
    stock = ["--criterion", "cross_entropy"]
    train(tmp_path / "data", tmp_path / "teacher", *task, *stock, model=model)
    teacher = tmp_path / "teacher" / "checkpoint_last.pt"
    cache = make_cache(tmp_path / "cache", tmp_path / "data", teacher, "--top-k", 336)
    fairseq(
        *["preprocess", "--only-source", "--destdir", tmp_path / "older"],
        *["--trainpref", text / "train.tgt", "--dataset-impl", "lazy"],
    )
    make_cache(tmp_path / "older-cache", tmp_path / "older", teacher, "--top-k", 336)
    assert files(tmp_path / "older-cache") == files(cache)
    losses = []
    for number, source in enumerate((["--teacher-path", teacher], ["--kd-cache", cache])):
        distil = ["--criterion", "word_kd", *source]
        student = tmp_path / f"student{number}"
        log = train(tmp_path / "data", student, *task, *distil, model=model)
        losses.append(float(logged(log, "train")[-1]["train_kd_loss"]))
    assert losses[0] > 0 and losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize(
    "criterion, impl", [("seq_kd", []), ("word_kd", ["--dataset-impl", "lazy"])]
)
def test_trains_on_fairseqs_older_format_as_on_mmap(
    data, older, store, cache, tmp_path, criterion, impl
):
    """With gold beside pseudo-targets, and from a cache, in several loading processes."""
    flags = {
        "seq_kd": ["--pseudo-targets", store, "--gold-weight", "0.3"],
        "word_kd": ["--kd-cache", cache],
    }[criterion]
    run = ["--task", "translation_seqkd", "--criterion", criterion, *flags]
    run += ["--num-workers", "3", "--max-update", "3"]
    train(data, tmp_path / "mmap", *run)
    train(older, tmp_path / "older", *run, *impl)
    weights = (parameters(tmp_path / n / "checkpoint_last.pt") for n in ("mmap", "older"))
    assert_same(*weights, rtol=0, atol=0)


def test_stock_fairseq_trains_on_the_stores_data_bin(store, tmp_path):
    """Without --user-dir: nothing of this package is imported."""
    task = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "2"]
    save = ["--save-dir", tmp_path]
    log = fairseq("train", store / "best", *TRAINING, *TINY, *task, *save)
    assert "fairseq_seqkd" not in log
    assert (tmp_path / "checkpoint_last.pt").exists()


def teacher_bytes(teacher):
    return sum(p.numel() * p.element_size() for p in parameters(teacher).values())


@pytest.fixture(scope="module")
def orphan(data, teacher, tmp_path_factory):
    """A student of translation_seqkd with Word-KD, whose teacher's file is deleted."""
    folder = tmp_path_factory.mktemp("orphan")
    shutil.copy(teacher, folder / "teacher.pt")
    train(
        *[data, folder, "--task", "translation_seqkd", "--criterion", "seq_kd"],
        *["--kd-alpha", "0.5", "--gold-weight", "0.2", "--max-update", "3"],
        *["--pseudo-targets", folder / "store", "--teacher-path", folder / "teacher.pt"],
        *["--accept-unfinished", "1"],
    )
    (folder / "teacher.pt").unlink()
    return folder / "checkpoint_last.pt"


@pytest.mark.parametrize("task", ["translation_seqkd", "translation"])
def test_generate_without_the_teacher(data, orphan, task):
    output = fairseq(
        *["generate", data, "--user-dir", USER_DIR, "--path", orphan, "--cpu"],
        *["--task", task, "--required-batch-size-multiple", "1"],
    )
    assert len(re.findall(r"^H-\d+", output, re.MULTILINE)) == 20


def test_validate_without_the_teacher(data, orphan):
    output = fairseq(
        *["validate", data, "--user-dir", USER_DIR, "--path", orphan, "--cpu"],
        *["--task", "translation_seqkd", "--required-batch-size-multiple", "1"],
        *["--valid-subset", "valid", "--log-format", "simple", "--max-tokens", "300"],
    )
    assert "validating without a teacher, kd_loss is 0" in output
    assert re.search(r"valid on 'valid' subset \| loss [\d.]+ .* kd_loss 0 ", output)


@pytest.mark.parametrize(
    "task, criterion, more",
    [
        ("translation", "word_kd", ""),
        ("translation", "word_kd", ", kd_cache: {cache}, kd_leftover: tail"),
        ("translation_seqkd", "seq_inter", ""),
        ("translation", "imit_kd", ", kd_schedule: linear, imit_kd_loss: full, kd_coin: batch"),
    ],
)
def test_hydra_trains_a_student_from_yaml(
    data, teacher, store, tmp_path, task, criterion, more
):
    if "cache" in more:
        cache = make_cache(tmp_path / "cache", data, teacher, "--temperature", 2)
        more = more.format(cache=cache)
    own = f", pseudo_targets: {store}" if task == "translation_seqkd" else ""
    (tmp_path / "student.yaml").write_text(
        f"""# @package _group_
common: {{user_dir: {USER_DIR}, cpu: true, log_format: json, log_interval: 1}}
task: {{_name: {task}, data: {data}{own}}}
criterion:
  {{_name: {criterion}, teacher_path: {teacher}, kd_alpha: 0.7, kd_temperature: 2{more}}}
model:
  _name: transformer
  share_decoder_input_output_embed: true
  base_layers: 0  # upstream's hydra would make it null
  encoder: {{embed_dim: 16, ffn_embed_dim: 16, layers: 1, attention_heads: 2}}
  decoder: {{embed_dim: 16, ffn_embed_dim: 16, layers: 1, attention_heads: 2}}
optimizer: {{_name: adam, adam_betas: "(0.9, 0.98)"}}
lr_scheduler: {{_name: inverse_sqrt, warmup_updates: 10}}
dataset: {{max_tokens: 300, required_batch_size_multiple: 1}}
optimization: {{max_update: 2, lr: [0.001]}}
checkpoint: {{save_dir: {tmp_path}, no_epoch_checkpoints: true}}
"""
    )
    output = fairseq(
        *["hydra_train", "--config-dir", tmp_path, "--config-name", "student"],
        f"hydra.run.dir={tmp_path}/hydra",
    )
    logs = "".join(path.read_text() for path in (tmp_path / "hydra").glob("*.log"))
    assert "kd_loss" in output + logs
    saved = torch.load(tmp_path / "checkpoint_last.pt")["cfg"]["criterion"]
    assert (saved["_name"], saved["kd_alpha"]) == (criterion, 0.7)


@pytest.mark.parametrize(
    "criterion", [["seq_kd", "--kd-alpha", "0.5"], ["imit_kd", "--kd-schedule", "linear"]]
)
def test_lstm_student_of_a_transformer(data, teacher, store, tmp_path, criterion):
    log = train(
        *[data, tmp_path, "--task", "translation_seqkd", "--criterion", *criterion],
        *["--gold-weight", "0.3", "--teacher-path", teacher, "--pseudo-targets", store],
        *["--max-update", "2"],
        model=LSTM,
    )
    assert float(logged(log, "train")[-1]["train_kd_loss"]) > 0


@HALF
@pytest.mark.parametrize("mode", [["--fp16", "--fp16-no-flatten-grads"], ["--amp"]])
@pytest.mark.parametrize("criterion", ["word_kd", "gkd", "cached"])
def test_half_precision(data, teacher, cache, tmp_path, mode, criterion):
    flags = [*word_kd(teacher), "--criterion", criterion]
    if criterion == "cached":
        flags = ["--task", "translation", "--criterion", "word_kd", "--kd-cache", cache]
    log = train(data, tmp_path, *flags, *mode, "--max-update", "2")
    values = logged(log, "train")[-1]
    assert 0 < float(values["train_kd_loss"]) < 100


def test_eval_bleu_scores_the_student(data, teacher, store, tmp_path):
    log = train(
        *[data, tmp_path, "--task", "translation_seqkd", "--criterion", "seq_kd"],
        *["--kd-alpha", "0.5", "--teacher-path", teacher, "--pseudo-targets", store],
        *["--lr", "0.02", "--max-update", "20"],
        *["--eval-bleu", "--eval-bleu-args", '{"beam": 1}', "--validate-interval", "100"],
    )
    scored = float(logged(log, "valid")[-1]["valid_bleu"])
    student = {"student": str(tmp_path / "checkpoint_last.pt")}
    both = {**student, "teacher": str(teacher)}
    quick = {"beams": (1,), "engines": ["fairseq"], "rounds": 1}
    rows = evaluate(both, Settings(str(data), "valid", **quick))[0].rows
    assert scored == pytest.approx(rows[0].bleu, abs=0.01)
    assert scored != pytest.approx(rows[1].bleu, abs=0.01)


@RESUMES
@pytest.mark.parametrize(
    "criterion, flags",
    [
        ("word_kd", []),
        ("word_kd", ["--kd-cache"]),
        ("seq_inter", []),
        ("seq_kd", ["--kd-targets", "sampled"]),
        ("seq_kd", ["--pseudo-targets", "online", "--teacher-sampling"]),
        ("imit_kd", ["--kd-sampling-topk", "5", "--kd-schedule", "linear"]),
        ("gkd", []),
        ("distill", ["--kd-prefixes", "interleaved", "--kd-accept-topk", "2"]),
        ("distill", ["--kd-prefixes", "switch", "--kd-sampling-topp", "0.5"]),
        ("distill", ["--kd-weighting", "selective_global", "--kd-queue", "300"]),
    ],
)
def test_ten_updates_equal_five_resume_five(
    data, teacher, cache, store, tmp_path, criterion, flags
):
    flags = [*flags, cache] if flags == ["--kd-cache"] else flags
    run = [
        *["--task", "translation_seqkd", "--criterion", criterion, "--dropout", "0.1"],
        *["--kd-alpha", "0.5", "--gold-weight", "0.25", "--pseudo-targets", store, *flags],
        *["--teacher-path", teacher, "--max-update", "10", "--save-interval-updates", "5"],
    ]
    train(data, tmp_path / "unbroken", *run)
    (half,) = (tmp_path / "unbroken").glob("checkpoint_*_5.pt")
    train(data, tmp_path / "resumed", *run, "--restore-file", half)
    unbroken, resumed = (
        parameters(tmp_path / name / "checkpoint_last.pt") for name in ("unbroken", "resumed")
    )
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)
    assert not all(torch.equal(unbroken[name], p) for name, p in parameters(half).items())


@pytest.mark.parametrize(
    "flags",
    [
        ["--criterion", "seq_kd", "--kd-alpha", "0.5"],
        ["--criterion", "seq_kd", "--kd-alpha", "0.5", "--gold-weight", "0.3"],
        ["--criterion", "imit_kd", "--kd-schedule", "linear"],
        ["--criterion", "imit_kd", "--imit-kd-loss", "full", "--gold-weight", "0.3"],
    ],
)
def test_two_ranks_equal_update_freq_two(data, teacher, store, tmp_path, flags):
    run = [
        *["--task", "translation_seqkd", *flags, "--pseudo-targets", store, *NO_DROPOUT],
        *["--teacher-path", teacher, "--max-update", "4"],
    ]
    train(data, tmp_path / "one", *run, "--update-freq", "2")
    ranks(2, data, tmp_path / "two", *run)
    one, two = (parameters(tmp_path / n / "checkpoint_last.pt") for n in ("one", "two"))
    assert_same(one, two, rtol=0, atol=1e-5)


WORD_KD = ["--task", "translation", "--criterion", "word_kd"]


def test_two_ranks_train_from_a_cache_like_one_process(data, cache, tmp_path):
    """One of them runs out of batches before the other. No teacher is named."""
    run = [*WORD_KD, "--kd-cache", cache, *NO_DROPOUT, "--max-update", "4"]
    train(data, tmp_path / "one", *run, "--update-freq", "2")
    ranks(2, data, tmp_path / "two", *run, "--save-interval-updates", "2")
    one, two = (parameters(tmp_path / n / "checkpoint_last.pt") for n in ("one", "two"))
    assert_same(two, one, rtol=0, atol=1e-5)


def test_a_cache_of_pseudo_targets(data, teacher, store, tmp_path):
    """Word-KD on the teacher's translations, with gold beside them, and without the teacher."""
    cache = make_cache(tmp_path / "cache", store / "best", teacher)
    seq_kd = ["--task", "translation_seqkd", "--criterion", "seq_kd", "--pseudo-targets", store]
    flags = ["--kd-alpha", "0.5", "--gold-weight", "0.3", "--max-update", "2"]
    log = train(data, tmp_path / "run", *seq_kd, *flags, "--kd-cache", cache)
    assert float(logged(log, "train")[-1]["train_kd_loss"]) > 0
    other = ["--kd-cache", cache, "--max-update", "2"]
    refused = train(data, tmp_path / "gold", *WORD_KD, *other, fails=True)
    assert "is of other sentences than this training" in refused
    assert not (tmp_path / "gold" / "checkpoint_last.pt").exists()


def test_validation_beside_a_cache_asks_the_teacher_if_it_is_there(
    data, teacher, cache, tmp_path
):
    with_it, without = (
        train(data, tmp_path / name, *WORD_KD, "--kd-cache", cache, "--max-update", "1", *more)
        for name, more in (("with", ["--teacher-path", teacher]), ("without", []))
    )
    losses = [float(logged(log, "valid")[-1]["valid_kd_loss"]) for log in (with_it, without)]
    assert losses[0] > 0 and losses[1] == 0


class TestErrors:
    """What a user sees at the end of a command that cannot work."""

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["word_kd", "--teacher-path", "no/such.pt"], "no checkpoint at 'no/such.pt'"),
            (["word_kd"], "--teacher-path is None, expected a checkpoint"),
            (["word_kd", "--kd-alpha", "2"], "--kd-alpha is 2.0, expected"),
            (["seq_kd"], "--kd-targets best needs pseudo-targets.*--task translation_seqkd"),
            (
                ["distill", "--kd-divergence", "l2"],
                "argument --kd-divergence: invalid choice: 'l2' .choose from.*forward_kl",
            ),
            (
                ["distill", "--kd-skew", "0.2", "--kd-divergence", "jsd"],
                "--kd-skew is 0.2, but nothing uses it: it belongs to --kd-divergence skew_kl "
                "and --kd-divergence skew_reverse_kl, and this is .*--kd-divergence jsd",
            ),
            (
                ["imit_kd", "--teacher-path", "t.pt"],
                "--max-update is 0, but --kd-schedule needs to know how long",
            ),
        ],
    )
    def test_of_the_criterion(self, data, tmp_path, arguments, message):
        task = ["--task", "translation", "--criterion"]
        output = train(data, tmp_path, *task, *arguments, fails=True)
        assert re.search(message, output)

    def test_student_prefixes_of_a_language_model(self, text, tmp_path):
        fairseq(
            *["preprocess", "--only-source", "--destdir", tmp_path / "data"],
            *["--trainpref", text / "train.tgt", "--validpref", text / "valid.tgt"],
        )
        run = ["--task", "language_modeling", "--tokens-per-sample", "32", "--max-update", "1"]
        model = ["--arch", "transformer_lm", "--decoder-layers", "1", *LM_SIZE]
        stock = ["--criterion", "cross_entropy"]
        train(tmp_path / "data", tmp_path / "teacher", *run, *stock, model=model)
        ours = ["--criterion", "gkd", "--teacher-path", tmp_path / "teacher/checkpoint_last.pt"]
        folders = tmp_path / "data", tmp_path / "student"
        output = train(*folders, *run, *ours, model=model, fails=True)
        assert "--kd-prefixes: TransformerLanguageModel generates no targets" in output
        assert "take --kd-prefixes data" in output

    def test_no_store_and_no_teacher(self, data, tmp_path):
        run = ["--task", "translation_seqkd", "--criterion", "seq_kd"]
        where = ["--pseudo-targets", tmp_path / "store"]
        output = train(data, tmp_path, *run, *where, fails=True)
        assert "there is no store at" in output and "--teacher-path" in output
        assert not (tmp_path / "store").exists()

    def test_other_dictionary(self, text, teacher, tmp_path):
        short = tmp_path / "text"
        shutil.copytree(text, short)
        lines = (short / "train.tgt").read_text().splitlines(keepends=True)
        (short / "train.tgt").write_text("".join(lines[::-1]).replace("the ", "zzz "))
        data = preprocess(short, tmp_path / "data")
        output = train(data, tmp_path / "run", *word_kd(teacher), fails=True)
        assert re.search(r"target dictionary .* at index \d+ the teacher has '", output)
