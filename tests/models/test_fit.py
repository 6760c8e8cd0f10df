"""Every kind of model that fairseq registers: trained by the criteria, or refused in words."""

import importlib.util

import pytest
import torch
from conftest import LSTM, TINY, batch_of, preprocess, train
from fairseq import options
from fairseq.tasks import setup_task

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.models.fit import check_student, check_teacher

# fairseq compiles it; wheels of upstream may lack it.
LIBNAT = pytest.mark.skipif(
    importlib.util.find_spec("fairseq.libnat") is None, reason="this fairseq lacks libnat"
)
SMALL = TINY[2:-1]
LIGHTCONV = [*SMALL, "--encoder-kernel-size-list", "[3]", "--decoder-kernel-size-list", "[3]"]
ENCODER = [flag for pair in zip(SMALL[::2], SMALL[1::2]) if "enc" in pair[0] for flag in pair]
FCONV = ["--encoder-layers", "[(16,3)]", "--decoder-layers", "[(16,3)]"]
FCONV += ["--encoder-embed-dim", "16", "--decoder-embed-dim", "16"]
LM = ["--decoder-layers", "1", "--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16"]
LM += ["--decoder-attention-heads", "2"]
ADAPTIVE = ["--adaptive-softmax-cutoff", "20,60"]
NON_AUTOREGRESSIVE = [
    *["nonautoregressive_transformer", "nacrf_transformer", "cmlm_transformer"],
    *["iterative_nonautoregressive_transformer", "levenshtein_transformer"],
    *["insertion_transformer"],
]


@pytest.fixture(scope="module")
def joined(text, tmp_path_factory):
    """A data-bin with one dictionary for both sides, which some models need."""
    folder = tmp_path_factory.mktemp("joined")
    return preprocess(text, folder / "data-bin", "--joined-dictionary")


@pytest.fixture(scope="module")
def imported(joined, text):
    """A store of translations for that data-bin."""
    root = joined.parent / "store"
    cli.main(["import", str(joined), str(text / "train.tgt"), "--pseudo-targets", str(root)])
    return root


def build(data, arch, *flags, task="translation"):
    """A model, as fairseq-train builds them."""
    parser = options.get_training_parser()
    flags = [str(data), "--task", task, "--arch", arch, *flags]
    args = options.parse_args_and_arch(parser, flags)
    return setup_task(args).build_model(args)


@pytest.fixture(scope="module")
def batch(task):
    return batch_of(task, range(4), "valid")


@pytest.mark.parametrize(
    "arch, flags",
    [
        *[("transformer", SMALL), ("transformer_align", SMALL), ("lightconv", LIGHTCONV)],
        *[("lstm", LSTM[2:]), ("fconv", FCONV), ("bart_base", SMALL)],
    ],
)
def test_decoders_from_left_to_right_pass(joined, batch, arch, flags):
    model = build(joined, arch, *flags)
    check_student(model, batch)
    check_teacher(model, batch["net_input"])


@pytest.mark.parametrize("arch", NON_AUTOREGRESSIVE)
@pytest.mark.parametrize("task_name", ["translation_lev", "translation"])
def test_non_autoregressive_models_are_refused(joined, batch, arch, task_name):
    model = build(joined, arch, *SMALL, task=task_name)
    with pytest.raises(ValueError, match=r"--criterion: the student, \w+, .*tgt_tokens.*nat_"):
        check_student(model, batch)
    with pytest.raises(ValueError, match=r"--teacher-path: the teacher, \w+, .*tgt_tokens"):
        check_teacher(model, batch["net_input"])


def test_an_adaptive_softmax_is_refused_in_a_student_alone(joined, batch):
    model = build(joined, "transformer", *SMALL, *ADAPTIVE)
    with pytest.raises(ValueError, match="has an adaptive softmax.*--adaptive-softmax-cutoff"):
        check_student(model, batch)
    check_teacher(model, batch["net_input"])


def test_models_of_text_without_sources(data, batch, tmp_path):
    """Language models and masked ones score what they read, and nothing beside a source."""
    (tmp_path / "dict.txt").write_bytes((data / "dict.tgt.txt").read_bytes())
    flags = {
        "language_modeling": ["transformer_lm", *LM],
        "masked_lm": ["roberta_base", *ENCODER],
    }
    inputs = {"src_tokens": batch["target"], "src_lengths": None}
    text = {"net_input": inputs, "target": batch["target"]}
    for task, arch in flags.items():
        model = build(tmp_path, *arch, task=task)
        check_student(model, text)
        check_teacher(model, inputs)
        with pytest.raises(ValueError, match="reads no prefixes of targets .* beside sources"):
            check_teacher(model, batch["net_input"])
    translator = build(data, "transformer", *SMALL)
    with pytest.raises(ValueError, match="prev_output_tokens.*Expected .* a language model"):
        check_teacher(translator, inputs)


def test_batches_without_a_position_for_each_target(data, batch, tmp_path):
    """As in CTC, where frames and targets differ in length, and in classification."""
    (tmp_path / "dict.txt").write_bytes((data / "dict.tgt.txt").read_bytes())
    encoder = build(tmp_path, "roberta_base", *ENCODER, task="masked_lm")
    lengths = batch["net_input"]["src_lengths"]
    for source in (torch.zeros(4, 50, 8), torch.zeros(4, 50, dtype=torch.long)):
        inputs = {"src_tokens": source, "src_lengths": lengths}
        with pytest.raises(ValueError, match="no position for each target token.*s2t_transf"):
            check_student(encoder, {"net_input": inputs, "target": batch["target"]})


@pytest.mark.parametrize(
    "flags, found",
    [
        (["--task", "translation_lev", "--noise", "full_mask"], "tgt_tokens"),
        (ADAPTIVE, "has an adaptive softmax"),
    ],
)
def test_refused_by_the_command_before_the_first_step(data, teacher, tmp_path, flags, found):
    arch = "transformer" if flags is ADAPTIVE else "nonautoregressive_transformer"
    loss = ["--criterion", "word_kd", "--teacher-path", teacher, "--max-update", 1]
    model = ["--arch", arch, *SMALL]
    output = train(data, tmp_path, *loss, *flags, model=model, fails=True)
    assert "ValueError: --criterion: the student," in output and found in output
    assert "train_inner" not in output and not list(tmp_path.glob("checkpoint*"))


NAT_LOSS = ["--task", "translation_lev", "--criterion", "nat_loss"]


@pytest.mark.parametrize(
    "arch, flags",
    [
        ("nonautoregressive_transformer", [*NAT_LOSS, "--noise", "full_mask"]),
        ("cmlm_transformer", [*NAT_LOSS, "--noise", "random_mask"]),
        pytest.param(
            "levenshtein_transformer", [*NAT_LOSS, "--noise", "random_delete"], marks=LIBNAT
        ),
        (
            "transformer",
            [*ADAPTIVE, "--criterion", "adaptive_loss", "--ddp-backend", "legacy_ddp"],
        ),
    ],
)
def test_the_way_out_works(imported, tmp_path, arch, flags, refused, capsys):
    """What the refusals advise: fairseq's own criterion on a store's data-bin."""
    flags = [*flags, "--max-update", 2, "--encoder-learned-pos", "--decoder-learned-pos"]
    train(imported / "best", tmp_path, *flags, model=["--arch", arch, *SMALL])
    student = tmp_path / "checkpoint_last.pt"
    assert student.exists()
    if "nat_loss" in flags:  # its task puts BOS before sources; evaluate does as well
        evaluated = ["evaluate", imported / "best", "--split", "valid", "--rounds", 1]
        evaluated += ["--engines", "fairseq", "--checkpoints"]
        store = ["--pseudo-targets", tmp_path / "store", "--engine", "fairseq"]
        where = [imported / "best", *store, "--teacher-path", student]
        message = refused("generate", *where, "--split", "valid")
        assert "the task TranslationLevenshteinTask may read and generate more" in message
        cli.main([*map(str, [*evaluated, student])])
        assert "| 10 iterations " in capsys.readouterr().out
