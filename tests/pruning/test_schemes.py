"""Schemes against an independent computation, on random numbers and on ties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.pruning.schemes import SCHEMES, Scheme, smallest_masks
from fairseq_seqkd.pruning.weights import Weights

SHAPES = {
    "encoder.embed_tokens.weight": (40, 8),
    "encoder.layers.0.fc1.weight": (16, 8),
    "encoder.layers.0.fc1.bias": (16,),
    "encoder.layers.0.fc2.weight": (8, 16),
    "encoder.layers.1.fc1.weight": (16, 8),
    "encoder.layers.1.fc1.bias": (16,),
    "encoder.layers.1.fc2.weight": (8, 16),
    "decoder.layers.0.self_attn.q_proj.weight": (8, 8),
    "decoder.layers.0.self_attn.q_proj.bias": (8,),
    "decoder.layers.0.self_attn.k_proj.weight": (8, 8),
    "decoder.layers.0.self_attn.v_proj.weight": (8, 8),
    "decoder.layers.0.self_attn.out_proj.weight": (8, 8),
    "decoder.layers.0.self_attn.out_proj.bias": (8,),
    "decoder.layers.0.final_layer_norm.weight": (8,),
}
CLASS = {name: name.rsplit(".", 1)[0] for name in SHAPES}
CLASS.update({name: ".".join(name.split(".")[:3]) for name in SHAPES if "layers" in name})
MATRICES = [name for name, shape in SHAPES.items() if len(shape) == 2]


def random_model(seed, levels=None):
    """{name: array}; with few levels, many magnitudes are equal. Classes have other scales."""
    rng = np.random.default_rng(seed)
    model = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    scales = {name: 0.5 + i for i, name in enumerate(dict.fromkeys(CLASS.values()))}
    if levels:
        return {name: np.round(x * levels).astype(np.float32) for name, x in model.items()}
    return {name: (x * scales[CLASS[name]]).astype(np.float32) for name, x in model.items()}


def weights_of(model):
    tensors = {name: torch.from_numpy(array) for name, array in model.items()}
    return Weights(tensors, heads_of=lambda name: 4)


def smallest_of(scores, sparsity):
    """{name: mask}, by sorting."""
    flat = np.concatenate([score.ravel() for score in scores.values()])
    mask = np.zeros(len(flat), bool)
    mask[np.argsort(flat, kind="stable")[: round(sparsity * len(flat))]] = True
    masks, begin = {}, 0
    for name, score in scores.items():
        masks[name] = mask[begin : begin + score.size].reshape(score.shape)
        begin += score.size
    return masks


def expected(scheme, model, sparsity):
    matrices = {name: model[name] for name in MATRICES}
    if scheme == "class_blind":
        return smallest_of({name: abs(w) for name, w in matrices.items()}, sparsity)
    masks, scores = {}, {}
    for class_ in dict.fromkeys(CLASS[name] for name in MATRICES):
        members = {name: w for name, w in matrices.items() if CLASS[name] == class_}
        masks.update(smallest_of({name: abs(w) for name, w in members.items()}, sparsity))
        everything = np.concatenate([w.ravel() for w in members.values()]).astype(np.float64)
        sigma = np.float32(everything.std())
        scores.update({name: abs(w) / sigma for name, w in members.items()})
    return masks if scheme == "class_uniform" else smallest_of(scores, sparsity)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("scheme", ["class_blind", "class_uniform", "class_distribution"])
def test_equals_numpy(scheme, levels, sparsity):
    model = random_model(1, levels)
    found = SCHEMES.resolve(scheme, {})(weights_of(model), sparsity)
    wanted = expected(scheme, model, sparsity)
    assert found.keys() == wanted.keys()
    for name, mask in wanted.items():
        assert found[name].numpy().tolist() == mask.tolist(), name


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 0.5, 1.0, 2.0]), min_size=1), min_size=1),
    st.floats(0, 1),
)
def test_exactly_so_many_of_any_numbers(rows, sparsity):
    scores = {str(i): torch.tensor(row) for i, row in enumerate(rows)}
    masks = smallest_masks(scores, sparsity)
    pruned = torch.cat([scores[name][mask] for name, mask in masks.items()])
    kept = torch.cat([scores[name][~mask] for name, mask in masks.items()])
    assert len(pruned) == round(sparsity * (len(pruned) + len(kept)))
    assert not len(pruned) or not len(kept) or pruned.max() <= kept.min()


@pytest.mark.parametrize("scheme", ["class_blind", "class_uniform", "class_distribution"])
def test_what_is_pruned_stays_pruned(scheme):
    model, masks = random_model(2), {}
    for sparsity in (0.4, 0.4, 0.7):
        before = masks
        masks = SCHEMES.resolve(scheme, {})(weights_of(model), sparsity)
        for name, mask in masks.items():
            model[name][mask.numpy()] = 0
            assert name not in before or not (before[name] & ~mask).any()
        for name in MATRICES:  # retrained
            model[name] *= np.float32(1.5)


def test_classes_are_the_layers():
    found = {
        name: set(members) for name, members in weights_of(random_model(1)).classes.items()
    }
    assert found == {
        class_: {name for name in MATRICES if CLASS[name] == class_}
        for class_ in dict.fromkeys(CLASS[name] for name in MATRICES)
    }


def test_feed_forward_units():
    model = random_model(3)
    masks = SCHEMES.resolve("ffn", {})(weights_of(model), 0.5)
    for layer in ("encoder.layers.0", "encoder.layers.1"):
        rows, columns = model[f"{layer}.fc1.weight"], model[f"{layer}.fc2.weight"]
        magnitude = abs(rows).sum(1) + abs(columns).sum(0)
        zero_mask = np.isin(np.arange(16), np.argsort(magnitude)[:8])
        assert (masks[f"{layer}.fc1.weight"].numpy() == zero_mask[:, None]).all()
        assert (masks[f"{layer}.fc1.bias"].numpy() == zero_mask).all()
        assert (masks[f"{layer}.fc2.weight"].numpy() == zero_mask[None]).all()
    assert len(masks) == 6


def test_heads():
    model = random_model(4)
    masks = SCHEMES.resolve("heads", {})(weights_of(model), 0.5)
    attention = "decoder.layers.0.self_attn"
    inputs = [model[f"{attention}.{x}_proj.weight"].reshape(4, -1) for x in "qkv"]
    output = model[f"{attention}.out_proj.weight"].reshape(8, 4, 2)
    magnitude = sum(abs(x).sum(1) for x in inputs) + abs(output).sum((0, 2))
    zero_mask = np.isin(np.arange(4), np.argsort(magnitude)[:2]).repeat(2)
    for x in "qkv":
        assert (masks[f"{attention}.{x}_proj.weight"].numpy() == zero_mask[:, None]).all()
    assert (masks[f"{attention}.q_proj.bias"].numpy() == zero_mask).all()
    assert (masks[f"{attention}.out_proj.weight"].numpy() == zero_mask[None]).all()
    assert f"{attention}.out_proj.bias" not in masks


@pytest.mark.parametrize("scheme", ["heads", "ffn"])
def test_one_unit_stays(scheme):
    weights = weights_of(random_model(5))
    masks = SCHEMES.resolve(scheme, {})(weights, 0.999)
    for units in getattr(weights, scheme):
        for name, (tensor, dimension) in units.parts.items():
            assert (~masks[name]).sum() == tensor.numel() // units.number, (name, dimension)


@pytest.mark.parametrize("scheme", list(SCHEMES.options))
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_no_numbers(scheme, number):
    model = random_model(6)
    model["encoder.layers.1.fc2.weight"][0, 3] = number
    with pytest.raises(ValueError, match="encoder.layers.1.fc2.weight has weights that are"):
        Scheme(scheme, weights_of(model)).masks(0.5)


def test_less_than_one_unit():
    scheme = Scheme("heads", weights_of(random_model(7)))
    with pytest.raises(
        ValueError, match="--sparsity is 0.1, which is none of 4 heads: expected"
    ):
        scheme.refuse_sparsity(0.1, "--sparsity")
    scheme.refuse_sparsity(0.2, "--sparsity")
    assert scheme.describe() == "0.00 % of the heads are zero (each of 1 modules has 4)"


def test_a_model_without_heads():
    model = {"encoder.embed_tokens.weight": torch.ones(3, 3)}
    for scheme in ("heads", "ffn"):
        with pytest.raises(ValueError, match=f"scheme is {scheme}, but the model has none"):
            Scheme(scheme, Weights(model))
    assert Scheme("class_blind", Weights(model)).units == []
