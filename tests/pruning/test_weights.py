import pytest
import torch
from conftest import FIXED

from fairseq_seqkd.models.parameters import aliases_of, class_of, nonzero, parameters_of
from fairseq_seqkd.pruning.weights import Weights


@pytest.mark.parametrize(
    "name, expected",
    [
        ("encoder.embed_tokens.weight", "encoder.embed_tokens"),
        ("encoder.layers.10.self_attn.q_proj.weight", "encoder.layers.10"),
        ("decoder.layers.0.weight_ih", "decoder.layers.0"),  # an LSTM cell
        ("encoder.lstm.weight_ih_l1", "encoder.lstm.1"),
        ("encoder.lstm.weight_hh_l1_reverse", "encoder.lstm.1"),
        ("decoder.attention.input_proj.weight", "decoder.attention"),
        ("decoder.output_projection.weight", "decoder.output_projection"),
        ("encoder.sentence_encoder.layers.3.fc1.weight", "encoder.sentence_encoder.layers.3"),
        ("weight", ""),
    ],
)
def test_class_of(name, expected):
    assert class_of(name) == expected


def test_shared_parameters_count_once():
    shared, other = torch.randn(4, 3), torch.randn(4, 3)
    tensors = {"a": shared, "b": other, "c": shared, "d": shared.clone(), "version": shared[0]}
    assert aliases_of(tensors) == {"a": ["a", "c", "d"], "b": ["b"], "version": ["version"]}
    assert list(parameters_of(tensors)) == ["a", "b"]


@FIXED  # torch.signbit of -0.0 is False there
def test_zeros_of_another_sign_are_another_tensor():
    tensors = {"a": torch.tensor([[0.0, 1.0]]), "b": torch.tensor([[-0.0, 1.0]])}
    assert list(parameters_of(tensors)) == ["a", "b"]


@pytest.mark.parametrize("tensor", [torch.ones(3), torch.zeros(3, 3)])
def test_equal_ones_that_are_not_shared(tensor):
    """Layer norms and biases before training; layers of which nothing is left."""
    tensors = {"a": tensor, "b": tensor.clone()}
    assert list(parameters_of(tensors)) == ["a", "b"]


def test_counts_what_is_not_zero():
    assert nonzero({"a": torch.tensor([0.0, -0.0, 1e-30]), "b": torch.ones(2, 2)}) == 5


class TestWhatCanBePruned:
    def model(self):
        return {
            "encoder.embed_tokens.weight": torch.ones(5, 4),
            "encoder.embed_positions.weight": torch.ones(9, 4),
            "encoder.layers.0.fc1.weight": torch.ones(8, 4),
            "encoder.layers.0.fc1.bias": torch.ones(8),
            "encoder.layers.0.self_attn.bias_k": torch.ones(1, 1, 4),
            "encoder.layernorm_embedding.weight": torch.ones(4),
            "decoder.table": torch.ones(3, 3, dtype=torch.long),
        }

    def test_matrices_of_weights(self):
        found = Weights(self.model()).matrices
        assert list(found) == ["encoder.embed_tokens.weight", "encoder.layers.0.fc1.weight"]

    def test_skip(self):
        found = Weights(self.model(), skip="embed").matrices
        assert list(found) == ["encoder.layers.0.fc1.weight"]

    def test_nothing_left(self):
        with pytest.raises(ValueError, match="--prune-skip .* is 'e', which is found in all"):
            Weights(self.model(), skip="e")

    def test_nothing_there(self):
        with pytest.raises(
            ValueError, match="nothing can be pruned of 1 parameters .*no weights"
        ):
            Weights({"bias": torch.ones(3)})

    def test_weights_that_are_divided_by_their_norm(self):
        """Where they are zero, a convolution of fairseq's fconv would be 0 / 0."""
        layer = torch.nn.utils.weight_norm(torch.nn.Conv1d(3, 4, 2))
        model = {f"l.{n}": p for n, p in layer.named_parameters()}
        assert {name for name in model if model[name].dim() > 1} == {"l.weight_g", "l.weight_v"}
        with pytest.raises(ValueError, match="no weights"):
            Weights(model)

    def test_heads_that_do_not_divide_the_width(self):
        model = {f"l.{x}_proj.weight": torch.ones(6, 6) for x in ("q", "k", "v", "out")}
        with pytest.raises(
            ValueError, match="'l' is said to have 4 heads, which do not divide"
        ):
            Weights(model, heads_of=lambda name: 4)

    def test_no_regular_expression(self):
        with pytest.raises(ValueError, match=r"is '\(', expected a regular expression"):
            Weights(self.model(), skip="(")


class TestDead:
    def weights(self):
        fc1 = torch.tensor([[0.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
        fc2 = torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 1.0]])
        bias = torch.tensor([7.0, 0.0, 5.0])
        return Weights({"l.fc1.weight": fc1, "l.fc1.bias": bias, "l.fc2.weight": fc2})

    def test_weights(self):
        weights = self.weights()
        dead = weights.dead()
        assert set(dead) == {"l.fc1.weight", "l.fc2.weight"}
        assert (dead["l.fc1.weight"] == (weights.matrices["l.fc1.weight"] == 0)).all()

    def test_skipped_ones_keep_the_zeros_that_they_have(self):
        """But for one that begins as zeros, and is to be trained."""
        pruned, fresh = torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2)
        tensors = {"a": pruned, "b": fresh, "c": torch.ones(1, 2)}
        dead = Weights(tensors, skip="a|b").dead()
        assert dead["a"].tolist() == [[True, False]] and "b" not in dead

    def test_a_dead_units_bias_is_dead_and_no_other(self):
        weights = self.weights()
        assert weights.dead(weights.ffn)["l.fc1.bias"].tolist() == [True, False, False]
        assert (
            weights.dead(weights.ffn)["l.fc1.weight"] == weights.dead()["l.fc1.weight"]
        ).all()


def test_a_layers_copy_of_its_weights_is_not_counted():
    """fairseq 0.12.2 has room for one, before the weights themselves: empty, or filled."""
    weight = torch.ones(2, 3)
    for copy in (torch.zeros(2, 3), weight.clone()):
        tensors = {
            "encoder.layers.0.fc1_weight": copy,
            "encoder.layers.0.in_proj_bias": torch.zeros(6),
            "encoder.layers.0.fc1.weight": weight,
        }
        assert list(parameters_of(tensors)) == ["encoder.layers.0.fc1.weight"]
