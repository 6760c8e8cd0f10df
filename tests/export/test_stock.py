"""Students exported as checkpoints, used by stock fairseq."""

import os
import re

import pytest
import torch
from conftest import LSTM, USER_DIR, train
from processes import fairseq

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.models.checkpoints import read_checkpoint
from fairseq_seqkd.models.parameters import parameters_of
from fairseq_seqkd.pruning.weights import Weights


def export(*arguments):
    main(["export", *map(str, arguments)])


def hypotheses(data, path, *flags):
    generate = ["generate", data, "--path", path, "--cpu", "--required-batch-size-multiple", 1]
    output = fairseq(*generate, *flags)
    return sorted(re.findall(r"^H-.*", output, re.MULTILINE))


@pytest.fixture(scope="module", params=["transformer", "lstm"])
def student(request, data, teacher, store, tmp_path_factory):
    """Pruned by this package's task, with its criterion, and with a moving average."""
    folder = tmp_path_factory.mktemp("student")
    flags = [
        *["--task", "translation_seqkd", "--criterion", "seq_kd", "--kd-alpha", "0.5"],
        *["--teacher-path", teacher, "--pseudo-targets", store, "--max-update", "12"],
        *["--prune-sparsity", "0.8", "--prune-start-update", "10", "--store-ema"],
        *["--ema-decay", "0.9", "--lr", "0.02"],
    ]
    train(data, folder, *flags, **({"model": LSTM} if request.param == "lstm" else {}))
    return folder / "checkpoint_last.pt"


def test_stock_fairseq_generates_with_it(data, student, tmp_path):
    export(student, "--to", "fairseq", "--out", tmp_path / "out.pt")
    ours = ["--user-dir", USER_DIR, "--task", "translation_seqkd"]
    expected = hypotheses(data, student, *ours)
    assert len(expected) == 20
    assert hypotheses(data, tmp_path / "out.pt") == expected


def test_it_needs_no_allow_list_and_names_nothing_of_this_package(student, tmp_path):
    export(student, "--to", "fairseq", "--out", tmp_path / "out.pt")
    if hasattr(torch.serialization, "safe_globals"):
        allowed = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            state = torch.load(tmp_path / "out.pt", weights_only=True)
        finally:
            torch.serialization.add_safe_globals(allowed)
    else:
        state = torch.load(tmp_path / "out.pt")
    assert state["cfg"]["task"]["_name"] == "translation"
    assert state["cfg"]["criterion"]["_name"] == "label_smoothed_cross_entropy"
    for word in ("seqkd", "kd_", "prune", "pseudo", "teacher", os.path.basename(USER_DIR)):
        assert word not in re.sub("'save_dir': '[^']*'", "", str(state["cfg"]))
    assert state["last_optimizer_state"] is None


def test_a_sparse_file_becomes_an_equal_checkpoint(data, student, tmp_path, capsys):
    sparse, back = tmp_path / "student.safetensors", tmp_path / "back.pt"
    export(student, "--to", "sparse", "--out", sparse)
    assert "fairseq-seqkd export" in capsys.readouterr().out
    export(sparse, "--to", "fairseq", "--out", back)
    assert f"fairseq-generate DATA --path {back}" in capsys.readouterr().out
    original, found = (read_checkpoint(str(path))["model"] for path in (student, back))
    assert original.keys() == found.keys()
    assert all(torch.equal(original[name], found[name]) for name in original)
    export(student, "--to", "fairseq", "--out", tmp_path / "direct.pt")
    direct = read_checkpoint(str(tmp_path / "direct.pt"))
    assert read_checkpoint(str(back))["cfg"] == direct["cfg"]
    assert hypotheses(data, back) == hypotheses(data, tmp_path / "direct.pt")


def test_the_moving_average_keeps_the_zeros(student, tmp_path):
    export(student, "--to", "fairseq", "--out", tmp_path / "out.pt", "--ema")
    average = read_checkpoint(str(tmp_path / "out.pt"))["model"]
    state = read_checkpoint(str(student))
    for name, zero_mask in Weights(parameters_of(state["model"])).zero_masks().items():
        assert not average[name][zero_mask].any()
        if (~zero_mask).any():
            assert (average[name] != state["model"][name])[~zero_mask].any()
        assert state["extra_state"]["ema"][name][zero_mask].any()  # as trained


def test_fine_tuning_goes_on_from_it(data, student, tmp_path):
    export(student, "--to", "fairseq", "--out", tmp_path / "out.pt")
    model = LSTM if "lstm" in str(read_checkpoint(str(student))["cfg"]["model"].arch) else None
    flags = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "1"]
    log = train(
        *[data, tmp_path / "more", *flags, "--finetune-from-model", tmp_path / "out.pt"],
        **({"model": model} if model else {}),
    )
    assert "loading pretrained model from" in log


class TestErrors:
    @pytest.fixture
    def fails(self, word_kd_student, tmp_path, capsys):
        checkpoint = word_kd_student[0] / "checkpoint_last.pt"

        def fails(*flags, student=checkpoint):
            with pytest.raises(SystemExit, match="2"):
                export(student, *flags)
            return capsys.readouterr().err

        return fails

    def test_no_average(self, fails, tmp_path):
        message = fails("--to", "fairseq", "--ema", "--out", tmp_path / "out.pt")
        assert "has no moving average of its weights. Expected a checkpoint of a" in message
        assert not (tmp_path / "out.pt").exists()

    def test_names(self, fails, tmp_path, word_kd_student):
        message = fails("--to", "sparse", "--out", tmp_path / "out.pt")
        assert "expected a name in .safetensors" in message
        message = fails("--to", "fairseq", "--out", tmp_path / "out.safetensors")
        assert "expected a name in .pt" in message
        itself = word_kd_student[0] / "checkpoint_last.pt"
        assert "itself: name another file" in fails("--to", "fairseq", "--out", itself)

    @pytest.mark.parametrize("change", [{"cfg": None}, {"optimizer_history": []}])
    def test_a_checkpoint_without_its_entries(self, fails, word_kd_student, tmp_path, change):
        state = read_checkpoint(str(word_kd_student[0] / "checkpoint_last.pt"))
        torch.save({**state, **change}, tmp_path / "changed.pt")
        message = fails(
            *["--to", "fairseq", "--out", tmp_path / "o.pt"], student=tmp_path / "changed.pt"
        )
        assert "changed.pt' is not a fairseq checkpoint (" in message

    def test_a_sparse_file_in_the_place_of_a_checkpoint(self, fails, word_kd_student, tmp_path):
        itself = word_kd_student[0] / "checkpoint_last.pt"
        export(itself, "--to", "sparse", "--out", tmp_path / "student.safetensors")
        (tmp_path / "student.safetensors").rename(tmp_path / "student.pt")
        message = fails(*["--to", "fairseq", "--out", "o.pt"], student=tmp_path / "student.pt")
        assert "it looks like a sparse file. fairseq-seqkd export" in message

    def test_average_of_a_sparse_file(self, fails):
        message = fails("--to", "fairseq", "--ema", "--out", "o.pt", student="a.safetensors")
        assert "a sparse file has one set of weights" in message

    @pytest.mark.parametrize("name", ["none.pt", "none.safetensors"])
    def test_no_file(self, fails, name, tmp_path):
        message = fails("--to", "fairseq", "--out", tmp_path / "out.pt", student=name)
        assert name in message and len(message.splitlines()) == 1
