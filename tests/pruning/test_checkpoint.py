"""Pruning of checkpoints on disk, by the command."""

import re
import shutil
import subprocess
import sys
from argparse import Namespace

import pytest
import torch
from conftest import FIXED, TINY, train
from processes import fairseq

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.models.checkpoints import plain_containers, read_checkpoint
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.models.parameters import count_nonzero, fraction_of_zeros, parameters_of
from fairseq_seqkd.models.paths import without_paths
from fairseq_seqkd.pruning.weights import Weights

SCHEMES = ["class_blind", "class_uniform", "class_distribution"]


def prune(*arguments):
    main(["prune", *map(str, arguments)])


def model_of(path):
    return parameters_of(read_checkpoint(str(path))["model"])


def sparsity_of(model):
    return fraction_of_zeros(Weights(model).matrices)


@pytest.fixture(scope="module")
def wide(data, tmp_path_factory):
    """A student with a feed-forward width on each side, and with a moving average."""
    folder = tmp_path_factory.mktemp("wide")
    model = [*TINY, "--encoder-ffn-embed-dim", "24", "--encoder-layers", "2"]
    flags = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "10"]
    train(data, folder, *flags, "--store-ema", "--ema-decay", "0.5", model=model)
    return folder / "checkpoint_last.pt"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_hits_the_sparsity(wide, tmp_path, scheme, sparsity):
    before = wide.read_bytes()
    prune(wide, tmp_path / "out.pt", "--sparsity", sparsity, "--scheme", scheme)
    model, dense = model_of(tmp_path / "out.pt"), model_of(wide)
    tolerance = 1e-4 if scheme != "class_uniform" else 1e-2  # rounded in every class
    assert sparsity_of(model) == pytest.approx(sparsity, abs=tolerance)
    for name, tensor in model.items():
        left = tensor != 0
        assert torch.equal(tensor[left], dense[name][left])
    assert wide.read_bytes() == before


def test_class_blind_is_exact_on_a_whole_model(wide, tmp_path):
    prune(wide, tmp_path / "out.pt", "--sparsity", "0.8")
    matrices = Weights(model_of(tmp_path / "out.pt")).matrices
    size = sum(tensor.numel() for tensor in matrices.values())
    assert size - count_nonzero(matrices) == round(0.8 * size)


def test_the_checkpoint_is_whole_and_has_no_optimizer(wide, tmp_path, capsys):
    prune(wide, tmp_path / "out.pt", "--sparsity", "0.5")
    state, dense = read_checkpoint(str(tmp_path / "out.pt")), read_checkpoint(str(wide))
    assert state.keys() == dense.keys()
    assert state["last_optimizer_state"] is None
    found, expected = (plain_containers(one["cfg"]["model"]) for one in (state, dense))
    assert found == without_paths(expected)
    out = capsys.readouterr().out
    left = count_nonzero(parameters_of(state["model"]))
    assert re.search(rf"\| all +\| +[\d,]+ \| +{left:,} \|", out)
    assert out.startswith("50.00 % of the weights are zero")
    assert "--finetune-from-model" in out and "decoder.layers.0" in out


def test_shared_embeddings_stay_shared(wide, tmp_path):
    prune(wide, tmp_path / "out.pt", "--sparsity", "0.5")
    model = read_checkpoint(str(tmp_path / "out.pt"))["model"]
    shared = [f"decoder.{n}.weight" for n in ("embed_tokens", "output_projection")]
    assert model[shared[0]].data_ptr() == model[shared[1]].data_ptr()


def test_copies_of_shared_embeddings_are_pruned_as_one(wide, tmp_path):
    """Averaging of checkpoints makes copies."""
    state = read_checkpoint(str(wide))
    state["model"] = {name: tensor.clone() for name, tensor in state["model"].items()}
    torch.save(state, tmp_path / "copies.pt")
    prune(tmp_path / "copies.pt", tmp_path / "out.pt", "--sparsity", "0.5")
    prune(wide, tmp_path / "other.pt", "--sparsity", "0.5")
    found, expected = (
        read_checkpoint(str(tmp_path / name))["model"] for name in ("out.pt", "other.pt")
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_moving_average_is_pruned_as_well(wide, tmp_path):
    prune(wide, tmp_path / "out.pt", "--sparsity", "0.5")
    state = read_checkpoint(str(tmp_path / "out.pt"))
    for name, mask in Weights(parameters_of(state["model"])).zero_masks().items():
        average = state["extra_state"]["ema"][name]
        assert not average[mask].any() and average[~mask].any()


def test_an_lstm(data, tmp_path):
    lstm = ["--arch", "lstm", "--encoder-embed-dim", "8", "--decoder-embed-dim", "8"]
    lstm += ["--encoder-hidden-size", "8", "--decoder-hidden-size", "8"]
    flags = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "1"]
    train(data, tmp_path, *flags, "--decoder-out-embed-dim", "8", model=lstm)
    prune(tmp_path / "checkpoint_last.pt", tmp_path / "out.pt", "--sparsity", "0.7")
    assert sparsity_of(model_of(tmp_path / "out.pt")) == pytest.approx(0.7, abs=1e-4)


def test_a_language_model_without_its_dictionary(text, tmp_path):
    data = tmp_path / "data"
    flags = ["--only-source", "--destdir", data, "--validpref", text / "valid.tgt"]
    fairseq("preprocess", *flags, "--trainpref", text / "train.tgt")
    model = ["--arch", "transformer_lm", "--decoder-layers", "1", "--decoder-embed-dim", "16"]
    model += ["--decoder-ffn-embed-dim", "16", "--decoder-attention-heads", "2"]
    flags = ["--task", "language_modeling", "--tokens-per-sample", "32", "--max-update", "1"]
    train(data, tmp_path, *flags, "--criterion", "cross_entropy", model=model)
    shutil.rmtree(data)
    flags = ["--sparsity", "0.5", "--scheme", "ffn", "--compact"]
    prune(tmp_path / "checkpoint_last.pt", tmp_path / "out.pt", *flags)
    state = read_checkpoint(str(tmp_path / "out.pt"))
    assert state["model"]["decoder.layers.0.fc1.weight"].shape == (8, 16)
    assert state["cfg"]["model"]["decoder_ffn_embed_dim"] == 8


def outputs(path, data):
    models, task, _ = load_models(str(path), str(data))
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    batch = dataset.collater([dataset[i] for i in range(8)])
    with torch.no_grad():
        return models[0].eval()(**batch["net_input"])[0], models[0]


def test_compact_has_the_same_output_and_is_smaller(wide, data, tmp_path, capsys):
    prune(wide, tmp_path / "zeros.pt", "--sparsity", "0.5", "--scheme", "ffn")
    prune(wide, tmp_path / "small.pt", "--sparsity", "0.5", "--scheme", "ffn", "--compact")
    out = capsys.readouterr().out
    assert "encoder: feed-forward width 24 -> 12" in out
    assert "decoder: feed-forward width 16 -> 8" in out
    (expected, dense), (found, small) = (
        outputs(tmp_path / name, data) for name in ("zeros.pt", "small.pt")
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert small.encoder.layers[1].fc1.weight.shape == (12, 16)
    assert small.decoder.layers[0].fc2.weight.shape == (16, 8)
    assert sum(p.numel() for p in small.parameters()) < sum(
        p.numel() for p in dense.parameters()
    )


def test_compact_alone_takes_the_width_of_the_widest_layer(wide, data, tmp_path):
    prune(wide, tmp_path / "zeros.pt", "--sparsity", "0.5", "--scheme", "ffn")
    state = read_checkpoint(str(tmp_path / "zeros.pt"))
    for unit in range(24):  # all but three of the first layer's
        if state["model"]["encoder.layers.0.fc1.weight"].abs().sum(1).gt(0).sum() > 3:
            for name, part in (("fc1.weight", unit), ("fc1.bias", unit)):
                state["model"][f"encoder.layers.0.{name}"][part] = 0
            state["model"]["encoder.layers.0.fc2.weight"][:, unit] = 0
    torch.save(state, tmp_path / "uneven.pt")
    prune(tmp_path / "uneven.pt", tmp_path / "small.pt", "--compact")
    found, small = outputs(tmp_path / "small.pt", data)
    torch.testing.assert_close(found, outputs(tmp_path / "uneven.pt", data)[0])
    assert small.encoder.layers[0].fc1.weight.shape == (12, 16)


def test_heads_are_set_to_zero(wide, tmp_path):
    prune(wide, tmp_path / "out.pt", "--sparsity", "0.5", "--scheme", "heads")
    weights = Weights(model_of(tmp_path / "out.pt"), heads_of=lambda name: 2)
    assert [int(units.zero_mask().sum()) for units in weights.heads] == [1, 1, 1, 1]


@FIXED  # it builds no model of nested containers
def test_a_configuration_of_containers(wide, data, tmp_path):
    """As hydra writes it: the width is in ``encoder``."""
    state = read_checkpoint(str(wide))
    flat = vars(state["cfg"]["model"])
    nested = {"_name": "transformer"}
    for side in ("encoder", "decoder"):
        names = ("ffn_embed_dim", "attention_heads", "embed_dim", "layers")
        nested[side] = {name: flat[f"{side}_{name}"] for name in names}
    state["cfg"]["model"] = nested
    # Beside it fairseq keeps defaults, which do not count.
    state["cfg"]["model"].update(encoder_ffn_embed_dim=2048, encoder_attention_heads=8)
    torch.save(state, tmp_path / "hydra.pt")
    flags = ["--sparsity", "0.5", "--scheme", "ffn", "--compact"]
    prune(tmp_path / "hydra.pt", tmp_path / "out.pt", *flags)
    model = read_checkpoint(str(tmp_path / "out.pt"))["cfg"]["model"]
    assert model["encoder"]["ffn_embed_dim"] == model["encoder_ffn_embed_dim"] == 12
    assert model["decoder"]["ffn_embed_dim"] == 8
    found, _ = outputs(tmp_path / "out.pt", data)
    prune(wide, tmp_path / "flat.pt", *flags)
    torch.testing.assert_close(found, outputs(tmp_path / "flat.pt", data)[0])
    prune(
        tmp_path / "hydra.pt", tmp_path / "heads.pt", "--sparsity", "0.5", "--scheme", "heads"
    )
    weights = Weights(model_of(tmp_path / "heads.pt"), heads_of=lambda name: 2)
    assert [int(units.zero_mask().sum()) for units in weights.heads] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "flags, printed",
    [
        (["--scheme", "ffn"], "--prune-sparsity 0.5 --prune-scheme ffn ..."),
        (["--skip", "embed_(t|x)"], "--prune-sparsity 0.5 --prune-skip 'embed_(t|x)' ..."),
        (
            ["--scheme", "ffn", "--compact"],
            "--encoder-ffn-embed-dim 12 --decoder-ffn-embed-dim 8",
        ),
    ],
)
def test_the_next_command_prunes_no_more(wide, tmp_path, capsys, flags, printed):
    prune(wide, tmp_path / "out.pt", "--sparsity", "0.5", *flags)
    assert printed in capsys.readouterr().out


def test_compact_takes_skipped_layers_into_account(wide, tmp_path, capsys):
    flags = ["--sparsity", "0.5", "--scheme", "ffn", "--compact"]
    prune(wide, tmp_path / "out.pt", *flags, "--skip", "encoder.layers.0.fc1")
    out = capsys.readouterr().out
    assert "encoder: feed-forward width 24 -> 24" in out and "16 -> 8" in out


class TestErrors:
    @pytest.fixture
    def fails(self, wide, tmp_path, capsys):
        def fails(*flags, checkpoint=wide):
            with pytest.raises(SystemExit, match="2"):
                prune(checkpoint, tmp_path / "out.pt", *flags)
            assert not (tmp_path / "out.pt").exists()
            return capsys.readouterr().err

        return fails

    @pytest.mark.parametrize(
        "flags, message",
        [
            (["--sparsity", "1"], "--sparsity is 1.0, expected a number from 0 to below 1"),
            (["--sparsity", "-0.5"], "--sparsity is -0.5, expected"),
            ([], "nothing to do: expected --sparsity, or --compact"),
            (["--sparsity", "0.5", "--skip", "."], "which is found in all names"),
            (["--sparsity", "0.1", "--scheme", "heads"], "which is none of 2 heads"),
            (["--sparsity", "0.5", "--skip", "("], "expected a regular expression"),
            (["--compact"], "--compact: no feed-forward units of"),
            (
                ["--sparsity", "0.5", "--compact"],
                "heads and single weights cannot be taken out",
            ),
        ],
    )
    def test_flags(self, fails, flags, message):
        assert message in fails(*flags)

    def test_files(self, fails, wide, tmp_path):
        assert "no checkpoint at 'none.pt'" in fails("--sparsity", 0.5, checkpoint="none.pt")
        (tmp_path / "text.pt").write_text("no checkpoint")
        message = fails("--sparsity", 0.5, checkpoint=tmp_path / "text.pt")
        assert f"the checkpoint {str(tmp_path / 'text.pt')!r} was " in message

    def test_itself(self, wide, tmp_path, capsys):
        shutil.copy(wide, tmp_path / "student.pt")
        with pytest.raises(SystemExit, match="2"):
            prune(tmp_path / "student.pt", tmp_path / "student.pt", "--sparsity", "0.5")
        assert "student.pt' itself: name another file" in capsys.readouterr().err
        (tmp_path / "link.pt").symlink_to(tmp_path / "student.pt")
        with pytest.raises(SystemExit, match="2"):
            prune(tmp_path / "link.pt", tmp_path / "student.pt", "--sparsity", "0.5")
        assert (tmp_path / "student.pt").read_bytes() == wide.read_bytes()

    def test_where_it_cannot_be_written(self, wide, tmp_path, capsys):
        for out, message in ((tmp_path, "a folder"), (tmp_path / "no" / "out.pt", "make it")):
            with pytest.raises(SystemExit, match="2"):
                prune(wide, out, "--sparsity", "0.5")
            assert message in capsys.readouterr().err

    @FIXED  # there torch ends the process
    def test_a_full_disk(self, wide, tmp_path):
        limit = f"ulimit -f 20; exec {sys.executable} -m fairseq_seqkd.cli.main"
        command = f"{limit} prune {wide} {tmp_path}/out.pt --sparsity 0.5"
        result = subprocess.run(
            ["bash", "-c", f"trap '' XFSZ; {command}"], capture_output=True, text=True
        )
        assert result.returncode == 2
        assert "cannot be written" in result.stderr and "out.pt" in result.stderr
        assert "Traceback" not in result.stderr and not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"model": None}, "is not a fairseq checkpoint (it holds no model)"),
            ({"model": {"a": 3}}, "is not a fairseq checkpoint (it holds no model)"),
        ],
    )
    def test_something_else_than_a_model(self, fails, wide, tmp_path, change, message):
        torch.save({**read_checkpoint(str(wide)), **change}, tmp_path / "own.pt")
        assert message in fails("--sparsity", "0.5", checkpoint=tmp_path / "own.pt")

    def test_without_a_configuration(self, wide, tmp_path):
        """Which is not needed to prune weights one by one."""
        state = {
            k: v for k, v in read_checkpoint(str(wide)).items() if k not in ("cfg", "args")
        }
        torch.save(state, tmp_path / "own.pt")
        prune(tmp_path / "own.pt", tmp_path / "out.pt", "--sparsity", "0.5")
        assert sparsity_of(model_of(tmp_path / "out.pt")) == pytest.approx(0.5, abs=1e-4)

    def test_twice(self, fails, wide, tmp_path):
        once = tmp_path / "once.pt"
        prune(wide, once, "--sparsity", "0.5")
        message = fails("--sparsity", "0.8", checkpoint=once)
        assert "was pruned before: 0.500 of it is zero. With --again it is pruned" in message
        message = fails("--sparsity", "0.4", "--again", checkpoint=once)
        assert "--sparsity is 0.4, but 0.500 of the model is zero already" in message
        prune(once, tmp_path / "twice.pt", "--sparsity", "0.8", "--again")
        prune(wide, tmp_path / "direct.pt", "--sparsity", "0.8")
        twice, direct = (model_of(tmp_path / name) for name in ("twice.pt", "direct.pt"))
        assert all(torch.equal(twice[name], direct[name]) for name in direct)

    def test_an_architecture_without_such_widths(self, fails, wide, tmp_path):
        state = read_checkpoint(str(wide))
        state["cfg"]["model"] = Namespace(_name="own", arch="own")
        torch.save(state, tmp_path / "own.pt")
        flags = ["--sparsity", "0.5", "--scheme", "ffn", "--compact"]
        message = fails(*flags, checkpoint=tmp_path / "own.pt")
        assert "has no encoder_ffn_embed_dim that could be made smaller" in message
