"""A model's prunable weights, grouped into classes, attention heads and feed-forward units.

Parameters are found by name, so a model in training and a checkpoint file are treated alike.
"""

import re
from collections import defaultdict
from typing import NamedTuple

from fairseq_seqkd.models.parameters import class_of

# Biases and norms are few, and their magnitudes do not compare with a weight's. A weight that
# is divided by its norm (weight_g, weight_v) must not become zero.
_NEVER_PRUNED = re.compile(
    r"bias|embed_positions|layer_?norm|weight_[gv]$|\.parametrizations\."
)
_SKIP = "--prune-skip (of fairseq-seqkd prune: --skip)"
_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


class UnitGroup(NamedTuple):
    """The heads of one attention module, or the hidden units of one feed-forward layer.

    Attributes:
        name: name of the module
        number: number of units
        parts: {name of a parameter: (its tensor, the dimension that the units divide)}
    """

    name: str
    number: int
    parts: dict

    def magnitudes(self):
        """(number,) the sum of |w| of every unit, by which fairseq ranks units, too."""
        return sum(
            self._sums(tensor.detach().abs().float(), d) for tensor, d in self._matrices()
        )

    def zero_mask(self):
        """(number,) True for units whose weights are all zero."""
        return sum(self._sums(tensor.detach() != 0, d) for tensor, d in self._matrices()) == 0

    def parameter_masks(self, units_mask):
        """{name: mask} over the parameters, True in those of the units in ``units_mask``."""
        return {name: self._expand(units_mask, *part) for name, part in self.parts.items()}

    def _matrices(self):
        return [(tensor, d) for tensor, d in self.parts.values() if tensor.dim() > 1]

    def _sums(self, tensor, dimension):
        by_unit = tensor.transpose(0, dimension).reshape(self.number, -1)
        return by_unit.sum(-1)

    def _expand(self, units_mask, tensor, dimension):
        size = tensor.size(dimension)
        mask = units_mask.repeat_interleave(size // self.number)
        shape = [size if d == dimension else 1 for d in range(tensor.dim())]
        return mask.view(shape).expand_as(tensor)


class Weights:
    """The prunable parameters of a model.

    Args:
        parameters: {name: tensor}, each shared one once
        skip: regular expression; parameters whose names match anywhere are not pruned
        heads_of: a function from the name of an attention module, such as
            ``encoder.layers.0.self_attn``, to its number of heads, or None if unknown

    Attributes:
        matrices: {name: tensor} of weights that can be pruned one by one
        skipped: {name: tensor} of weights that ``skip`` excludes
        heads, ffn: lists of `UnitGroup`
    Raises:
        ValueError: nothing is left to prune, ``skip`` is no regular expression, or a number of
            heads does not fit the weights
    """

    def __init__(self, parameters, skip=None, heads_of=lambda name: None):
        matches_skip = _matcher(skip)
        weights = {
            name: tensor
            for name, tensor in parameters.items()
            if tensor.is_floating_point()
            and tensor.dim() > 1
            and not _NEVER_PRUNED.search(name)
        }
        self.skipped = {n: w for n, w in weights.items() if matches_skip(n)}
        self.matrices = {n: w for n, w in weights.items() if n not in self.skipped}
        if not self.matrices:
            raise _nothing_to_prune(parameters, weights, skip)
        kept = {n: p for n, p in parameters.items() if not matches_skip(n)}
        self.ffn = [_ffn(name, kept) for name in _modules(kept, ("fc1", "fc2"))]
        numbers = {name: heads_of(name) for name in _modules(kept, _ATTENTION)}
        self.heads = [_heads(name, kept, number) for name, number in numbers.items() if number]

    @property
    def classes(self):
        """{class: {name: tensor}} of the matrices; see `class_of`."""
        classes = defaultdict(dict)
        for name, tensor in self.matrices.items():
            classes[class_of(name)][name] = tensor
        return classes

    def zero_masks(self, units=()):
        """{name: mask}, True where a parameter is zero and has to stay zero.

        Args:
            units: list of `UnitGroup` that are pruned as a whole. The biases of a zero unit
                have to stay zero, too; other biases may be zero for a while.
        """
        masks = {}
        for group in units:
            masks.update(group.parameter_masks(group.zero_mask()))
        # A skipped weight that is zero throughout was initialised so, and is to be trained.
        skipped = {name: tensor for name, tensor in self.skipped.items() if tensor.any()}
        for name, tensor in {**self.matrices, **skipped}.items():
            masks[name] = tensor.detach() == 0
        return masks


def _matcher(skip):
    """A function that tells whether a name matches ``skip``."""
    try:
        pattern = re.compile(skip) if skip else None
    except re.error as error:
        raise ValueError(
            f"{_SKIP} is {skip!r}, expected a regular expression ({error})"
        ) from error
    return lambda name: bool(pattern and pattern.search(name))


def _nothing_to_prune(parameters, weights, skip):
    reason = f"{_SKIP} is {skip!r}, which is found in all names" if weights else "no weights"
    return ValueError(
        f"nothing can be pruned of {len(parameters)} parameters such as "
        f"{next(iter(parameters), 'none')!r}: {reason}. Expected matrices of weights, some of "
        "which are not skipped."
    )


def _modules(parameters, layers):
    """The names of modules that have weights in all these layers."""
    ending = f".{layers[0]}.weight"
    names = [name[: -len(ending)] for name in parameters if name.endswith(ending)]
    return [n for n in names if all(f"{n}.{layer}.weight" in parameters for layer in layers)]


def _ffn(name, parameters):
    parts = _parts(name, parameters, {"fc1.weight": 0, "fc1.bias": 0, "fc2.weight": 1})
    return UnitGroup(name, len(parameters[f"{name}.fc1.weight"]), parts)


def _heads(name, parameters, number):
    ends = {f"{layer}.{kind}": 0 for layer in _ATTENTION[:3] for kind in ("weight", "bias")}
    parts = _parts(name, parameters, {**ends, "out_proj.weight": 1})
    if any(tensor.size(dimension) % number for tensor, dimension in parts.values()):
        raise ValueError(
            f"{name!r} is said to have {number} heads, which do not divide its matrices: the "
            "model's configuration does not belong to its weights"
        )
    return UnitGroup(name, number, parts)


def _parts(name, parameters, dimensions):
    named = {f"{name}.{ending}": dimension for ending, dimension in dimensions.items()}
    return {n: (parameters[n], d) for n, d in named.items() if n in parameters}
