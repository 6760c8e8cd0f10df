import pytest
import torch

from fairseq_seqkd.pruning.weights import Weights


class TestPrunableWeights:
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


class TestZeroMasks:
    def weights(self):
        fc1 = torch.tensor([[0.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
        fc2 = torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 1.0]])
        bias = torch.tensor([7.0, 0.0, 5.0])
        return Weights({"l.fc1.weight": fc1, "l.fc1.bias": bias, "l.fc2.weight": fc2})

    def test_weights(self):
        weights = self.weights()
        masks = weights.zero_masks()
        assert set(masks) == {"l.fc1.weight", "l.fc2.weight"}
        assert (masks["l.fc1.weight"] == (weights.matrices["l.fc1.weight"] == 0)).all()

    def test_skipped_ones_keep_the_zeros_that_they_have(self):
        """But for one that begins as zeros, and is to be trained."""
        pruned, fresh = torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2)
        tensors = {"a": pruned, "b": fresh, "c": torch.ones(1, 2)}
        masks = Weights(tensors, skip="a|b").zero_masks()
        assert masks["a"].tolist() == [[True, False]] and "b" not in masks

    def test_only_a_zero_units_bias_stays_zero(self):
        weights = self.weights()
        masks = weights.zero_masks(weights.ffn)
        assert masks["l.fc1.bias"].tolist() == [True, False, False]
        assert (masks["l.fc1.weight"] == weights.zero_masks()["l.fc1.weight"]).all()
