"""What of a model can be pruned, and how it falls into classes, heads and feed-forward units.

Everything goes by names, so that a model in training and a checkpoint on disk are looked at,
and counted, in the same way.
"""

import re
from collections import defaultdict
from typing import NamedTuple

from fairseq_seqkd.models.parameters import class_of

# Few, and with no magnitude to compare with a weight's. What has one dimension is never pruned.
# Nor are weights that are divided by their norm, which may not be zero.
_NEVER_PRUNED = re.compile(
    r"bias|embed_positions|layer_?norm|weight_[gv]$|\.parametrizations\."
)
_SKIP = "--prune-skip (of fairseq-seqkd prune: --skip)"
_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


class Units(NamedTuple):
    """Heads of one attention, or the units between two feed-forward layers.

    Attributes:
        name: of the module that has them
        number: how many there are
        parts: {name of a parameter: (its tensor, the dimension that the units divide)}
    """

    name: str
    number: int
    parts: dict

    def magnitudes(self):
        """(number,) the sum of |w| of every unit, as fairseq ranks heads and units as well."""
        return sum(
            self._sums(tensor.detach().abs().float(), d) for tensor, d in self._matrices()
        )

    def dead(self):
        """(number,) True for units whose weights are all zero."""
        return sum(self._sums(tensor.detach() != 0, d) for tensor, d in self._matrices()) == 0

    def masks(self, chosen):
        """{name: mask}, True in what belongs to the (number,) units that are chosen."""
        return {name: self._mask(chosen, *part) for name, part in self.parts.items()}

    def _matrices(self):
        return [(tensor, d) for tensor, d in self.parts.values() if tensor.dim() > 1]

    def _sums(self, tensor, dimension):
        by_unit = tensor.transpose(0, dimension).reshape(self.number, -1)
        return by_unit.sum(-1)

    def _mask(self, chosen, tensor, dimension):
        size = tensor.size(dimension)
        along = chosen.repeat_interleave(size // self.number)
        shape = [size if d == dimension else 1 for d in range(tensor.dim())]
        return along.view(shape).expand_as(tensor)


class Weights:
    """The parameters of a model that can be pruned.

    Args:
        parameters: {name: tensor}, each once
        skip: a regular expression; parameters in whose names it is found are left alone
        heads_of: called with the name of an attention, such as ``encoder.layers.0.self_attn``,
            gives the number of its heads, or None if it is not known

    Attributes:
        matrices: {name: tensor} of weights that can be pruned one by one
        skipped: {name: tensor} of those that ``skip`` leaves alone
        heads, ffn: lists of `Units`
    Raises:
        ValueError: nothing is left to prune, or ``skip`` is no regular expression
    """

    def __init__(self, parameters, skip=None, heads_of=lambda name: None):
        try:
            skipped = re.compile(skip) if skip else None
        except re.error as error:
            raise ValueError(
                f"{_SKIP} is {skip!r}, expected a regular expression ({error})"
            ) from error
        weights = {
            name: tensor
            for name, tensor in parameters.items()
            if tensor.is_floating_point()
            and tensor.dim() > 1
            and not _NEVER_PRUNED.search(name)
        }
        self.skipped = {n: w for n, w in weights.items() if skipped and skipped.search(n)}
        self.matrices = {n: w for n, w in weights.items() if n not in self.skipped}
        if not self.matrices:
            raise ValueError(
                f"nothing can be pruned of {len(parameters)} parameters such as "
                f"{next(iter(parameters), 'none')!r}: "
                + (
                    f"{_SKIP} is {skip!r}, which is found in all names"
                    if weights
                    else "no weights"
                )
                + ". Expected matrices of weights, some of which are not skipped."
            )
        kept = {n: p for n, p in parameters.items() if not (skipped and skipped.search(n))}
        self.ffn = [_ffn(name, kept) for name in _modules(kept, ("fc1", "fc2"))]
        numbers = {name: heads_of(name) for name in _modules(kept, _ATTENTION)}
        self.heads = [_heads(name, kept, number) for name, number in numbers.items() if number]
        for units in self.heads:
            if any(tensor.size(d) % units.number for tensor, d in units.parts.values()):
                raise ValueError(
                    f"{units.name!r} is said to have {units.number} heads, which do not divide "
                    "its matrices: the model's configuration is not that of its weights"
                )

    @property
    def classes(self):
        """{class: {name: tensor}} of the matrices."""
        found = defaultdict(dict)
        for name, tensor in self.matrices.items():
            found[class_of(name)][name] = tensor
        return found

    def dead(self, units=()):
        """{name: mask} of what is zero and has to stay so.

        Args:
            units: those that are pruned as a whole: a dead one's biases are dead as well, while
                other biases may be zero for a while
        """
        masks = {}
        for some in units:
            masks.update(some.masks(some.dead()))
        # One that is zero as a whole was not pruned, but begins so, and is to be trained.
        skipped = {name: tensor for name, tensor in self.skipped.items() if tensor.any()}
        for name, tensor in {**self.matrices, **skipped}.items():
            masks[name] = tensor.detach() == 0
        return masks


def _modules(parameters, layers):
    """The names of modules that have weights in all these layers."""
    ending = f".{layers[0]}.weight"
    names = [name[: -len(ending)] for name in parameters if name.endswith(ending)]
    return [n for n in names if all(f"{n}.{layer}.weight" in parameters for layer in layers)]


def _ffn(name, parameters):
    parts = _parts(name, parameters, {"fc1.weight": 0, "fc1.bias": 0, "fc2.weight": 1})
    return Units(name, len(parameters[f"{name}.fc1.weight"]), parts)


def _heads(name, parameters, number):
    ends = {f"{layer}.{kind}": 0 for layer in _ATTENTION[:3] for kind in ("weight", "bias")}
    return Units(name, number, _parts(name, parameters, {**ends, "out_proj.weight": 1}))


def _parts(name, parameters, dimensions):
    named = {f"{name}.{ending}": dimension for ending, dimension in dimensions.items()}
    return {n: (parameters[n], d) for n, d in named.items() if n in parameters}
