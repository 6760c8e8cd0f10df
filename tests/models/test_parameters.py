"""Finding and counting a model's parameters."""

import pytest
import torch
from conftest import FIXED

from fairseq_seqkd.models.parameters import (
    aliases_of,
    class_of,
    count_nonzero,
    fraction_of_zeros,
    parameters_of,
)


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


def test_count_nonzero():
    assert count_nonzero({"a": torch.tensor([0.0, -0.0, 1e-30]), "b": torch.ones(2, 2)}) == 5


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


@pytest.mark.parametrize(
    "tensors, expected",
    [
        ({"a": torch.tensor([0.0, -0.0, 1e-30, 2.0]), "b": torch.zeros(2, 2)}, 6 / 8),
        ({"a": torch.ones(3)}, 0.0),
        ({"a": torch.zeros(3)}, 1.0),
    ],
)
def test_fraction_of_zeros(tensors, expected):
    assert fraction_of_zeros(tensors) == expected
