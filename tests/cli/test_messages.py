"""Messages name the right model and flags that their command has."""

import pytest
import torch
from advice import errors_of, unknown_flags
from conftest import CTRANSLATE2, train

from fairseq_seqkd.cli.main import main


@pytest.fixture
def misfit(teacher, data, tmp_path):
    """A checkpoint whose embeddings do not fit its dictionary, and its data-bin."""
    state = torch.load(teacher)
    weights = state["model"]
    weights["encoder.embed_tokens.weight"] = weights["encoder.embed_tokens.weight"][:-1]
    torch.save(state, tmp_path / "misfit.pt")
    return tmp_path / "misfit.pt"


def test_evaluate_names_its_own_flags_and_no_teacher(misfit, data, refused):
    message = refused("evaluate", data, "--checkpoints", misfit)
    message = errors_of("evaluate", message)
    assert "does not fit its dictionary" in message and "--data-of NAME=DATA" in message
    assert "teacher" not in message


def test_evaluate_does_not_log_a_teacher(teacher, data, capsys, caplog):
    evaluated = ["--rounds", 1, "--beams", 1, "--engines", "fairseq"]
    main([*map(str, ["evaluate", data, "--checkpoints", f"student={teacher}", *evaluated])])
    assert "INFO: model: " in capsys.readouterr().err
    assert "teacher:" not in caplog.text


@CTRANSLATE2
@pytest.mark.parametrize("engine", ["ctranslate2:int3", "ctranslate2:float32"])
def test_evaluate_with_an_engine_that_cannot(teacher, data, refused, engine):
    """A type that does not exist; and an ensemble, which CTranslate2 cannot convert."""
    both = f"student={teacher}:{teacher}"
    message = refused("evaluate", data, "--checkpoints", both, "--engines", engine)
    assert f"--engines {engine}, 'student': " in message
    assert "teacher" not in errors_of("evaluate", message).replace(str(teacher), "")


def test_doctor_and_generate_name_the_flag_for_dictionaries(misfit, data, refused, tmp_path):
    flags = ["--pseudo-targets", tmp_path / "store", "--engine", "fairseq"]
    message = refused(
        "generate", data, "--teacher-path", misfit, "--teacher-data", data, *flags
    )
    assert "(--teacher-data)" in message
    with pytest.raises(SystemExit, match="1"):
        main(["doctor", str(misfit)])


def test_a_training_names_its_flag_for_the_engine(data, teacher, tmp_path):
    pytest.importorskip("ctranslate2")
    output = train(
        *[data, tmp_path, "--task", "translation_seqkd", "--criterion", "seq_kd"],
        *["--teacher-path", f"{teacher}:{teacher}", "--teacher-engine", "ctranslate2"],
        *["--pseudo-targets", tmp_path / "store"],
        fails=True,
    )
    assert "--teacher-engine ctranslate2: it is an ensemble of 2 models" in output
    assert "(--teacher-engine fairseq translates with any model)" in output


@pytest.mark.parametrize(
    "command, message, expected",
    [
        ("evaluate", "name its folder with --teacher-data", {"--teacher-data"}),
        ("generate", "name its folder with --teacher-data", set()),
        ("merge", "run fairseq-seqkd generate --beam 5 first", set()),
        ("merge", "run it with --beam 5 first", {"--beam"}),
        ("cache", "binarise with fairseq-preprocess --srcdict FILE", set()),
    ],
)
def test_a_flag_that_the_command_lacks_is_noticed(command, message, expected):
    assert unknown_flags(command, message) == expected
