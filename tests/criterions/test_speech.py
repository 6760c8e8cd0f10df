"""Distillation of models that read features: ``--task speech_to_text`` with ragged lengths."""

import copy
import re

import pytest
import torch
from conftest import CTRANSLATE2, S2T, batch_of, logged, train, without_dropout
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.criterions.gkd import GKDConfig, GKDCriterion
from fairseq_seqkd.criterions.imit_kd import ImitKDConfig, ImitKDCriterion
from fairseq_seqkd.criterions.word_kd import WordKDConfig
from fairseq_seqkd.models.adapters import eval_mode
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.prefixes import PREFIXES, TrainingStep
from fairseq_seqkd.teacher import load_teacher

TRAINED = {"finetune_from_model": "student.pt", "restore_file": "checkpoint_last.pt"}
COMMON = {**TRAINED, "sentence_avg": False, "seed": 1, "max_update": 10, "kd_max_len_a": 0.2}
CONSTANT = {"kd_schedule": "constant", "kd_beta": 0.5}


@pytest.fixture(scope="module")
def frozen(speech_teacher):
    teacher = load_teacher(str(speech_teacher))
    for name in ("train", "valid"):
        teacher.task.load_dataset(name)
    return teacher


@pytest.fixture(scope="module")
def listener(speech_teacher):
    """A student that reads features: the teacher's weights with noise, without dropout."""
    model = without_dropout(speech_teacher)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def readers(loaded, frozen, student, listener):
    """{name: (teacher, student, validation set)}: sources of text, padded left or right, and
    of features."""
    loaded.task.load_dataset("valid")
    text = loaded.task.dataset("valid")
    right = copy.copy(text)
    right.left_pad_source = False
    of_speech = frozen.task.dataset("valid")
    return {
        "text padded left": (loaded, student, text),
        "text padded right": (loaded, student, right),
        "features": (frozen, listener, of_speech),
    }


# With these, every token is the student's.
STUDENTS_OWN = {
    "student": CONSTANT,
    "interleaved": {"kd_accept_topk": 10**6},
    "switch": {"kd_switch_threshold": 1.0, "kd_switch_decay": 0.0},
}


@pytest.mark.parametrize("name", ["text padded left", "text padded right", "features"])
@given(
    ids=st.lists(st.integers(0, 11), min_size=1, max_size=8, unique=True),
    update=st.integers(0, 1000),
    policy=st.sampled_from(["student", "interleaved", "switch"]),
)
@settings(deadline=None, max_examples=25)
def test_rows_are_generated_with_what_they_are_scored_with(readers, name, ids, update, policy):
    """Whatever rows of whatever batch: each token is the best after its prefix, as the student
    reads the source within the whole batch."""
    teacher, student, dataset = readers[name]
    settings = {"kd_max_len_a": 0.2, "kd_sampling_topk": 1}
    settings.update(STUDENTS_OWN[policy])
    batch = dataset.collater([dataset[id_] for id_ in ids])
    step = TrainingStep(seed=1, update=update, progress=0.5)
    dictionary = teacher.task.target_dictionary
    settled = PREFIXES.resolve(policy, settings)()(batch, student, teacher, teacher.task, step)
    rows, target = settled.student_rows_mask, settled.sample["target"]
    with eval_mode(student), torch.no_grad():
        output = student(**settled.sample["net_input"])
        lprobs = student.get_normalized_probs(output, log_probs=True)
    lprobs[..., dictionary.pad()] = -torch.inf
    of_target = lprobs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    generated = rows.unsqueeze(-1) & target.ne(dictionary.pad())
    short_of_best = (lprobs.max(-1).values - of_target)[generated]
    assert len(rows) == len(ids) and (short_of_best < 1e-4).all()


METHODS = {
    "word_kd": (DistillCriterion, WordKDConfig, {}),
    "imit_kd": (ImitKDCriterion, ImitKDConfig, CONSTANT),
    "imit_kd, full": (ImitKDCriterion, ImitKDConfig, {**CONSTANT, "imit_kd_loss": "full"}),
    "gkd": (GKDCriterion, GKDConfig, {**CONSTANT, "kd_coin": "row"}),
    "gkd, one coin": (GKDCriterion, GKDConfig, {}),
    "interleaved": (DistillCriterion, DistillConfig, {"kd_prefixes": "interleaved"}),
    "drawn": (
        ImitKDCriterion,
        ImitKDConfig,
        {**CONSTANT, "kd_sampling_topk": -1, "gold_weight": 0.3},
    ),
}


def used_parameters(model):
    """Names and parameters, but those of upstream's encoder layers that no training uses."""
    unused = re.compile(r"\.(in_proj|out_proj|fc1|fc2)_(weight|bias)$")
    return [pair for pair in model.named_parameters() if not unused.search(pair[0])]


@pytest.mark.parametrize("method", METHODS)
def test_every_policy_trains_on_ragged_features(frozen, listener, speech_teacher, method):
    criterion, config, values = METHODS[method]
    values = {**COMMON, "teacher_path": str(speech_teacher), **values}
    if config is WordKDConfig:
        del values["kd_max_len_a"]
    criterion = criterion(frozen.task, OmegaConf.structured(config(**values))).train()
    batch = batch_of(frozen.task, range(30))
    frames = batch["net_input"]["src_lengths"]
    assert frames.max() > frames.min() + 20
    torch.manual_seed(1 + 7)  # update 7
    listener.zero_grad()
    loss, _, log = criterion(listener, batch)
    loss.backward()
    if criterion.method.prefix_policy is not None and method != "gkd, one coin":
        assert 0 < log["n_student_rows"] <= 30
    gradients = [p.grad for name, p in used_parameters(listener) if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert sum(g.abs().sum() for g in gradients) > 0


def test_imit_kd_as_a_command(speech, speech_teacher, tmp_path):
    """Coins for rows, some of which the student generates, by the real command."""
    loss = ["--task", "speech_to_text", "--criterion", "imit_kd", "--kd-max-len-a", 0.2]
    loss += ["--kd-schedule", "constant", "--kd-beta", 0.5, "--teacher-path", speech_teacher]
    output = train(
        *[speech, tmp_path, *loss, "--max-tokens", 2000, "--max-update", 8], model=S2T
    )
    shares = [float(line["student_rows"]) for line in logged(output, "train_inner")]
    assert len(shares) == 8 and any(0 < share < 100 for share in shares)


@pytest.mark.parametrize(
    "command, message",
    [
        (
            "generate DATA --pseudo-targets OUT --teacher-path MODEL",
            "no binarised sentence pairs",
        ),
        (
            "cache DATA --kd-cache OUT --teacher-path MODEL --top-k 8",
            "Train with --teacher-path",
        ),
        ("evaluate DATA --checkpoints MODEL", "task is speech_to_text.* fairseq-generate a"),
        pytest.param(
            "export MODEL --to ctranslate2 --out OUT",
            "reads no text.*--to fairseq exports any model",
            marks=CTRANSLATE2,
        ),
    ],
)
def test_commands_of_text_refuse_speech(
    speech, speech_teacher, refused, tmp_path, command, message
):
    paths = {"DATA": speech, "MODEL": speech_teacher, "OUT": tmp_path / "out"}
    assert re.search(message, refused(*[paths.get(word, word) for word in command.split()]))
    assert not (tmp_path / "out").exists()


def test_export_takes_a_speech_model(speech, speech_teacher, tmp_path):
    out = tmp_path / "exported.pt"
    cli.main(["export", str(speech_teacher), "--to", "fairseq", "--out", str(out)])
    exported, alone = (
        load_models(str(path), str(speech))[0][0] for path in (out, speech_teacher)
    )
    exported = dict(used_parameters(exported))
    for name, tensor in used_parameters(alone):
        assert torch.equal(exported[name], tensor)
