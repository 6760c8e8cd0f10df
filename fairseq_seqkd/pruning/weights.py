"""What of a model can be pruned, and how it falls into classes, heads and feed-forward units.

Everything goes by names, so that a model in training and a checkpoint on disk are looked at,
and counted, in the same way.
"""

import re
from collections import defaultdict
from typing import NamedTuple

import torch

# Kept beside the parameters in fairseq's checkpoints. fairseq 0.12.2 has room in every encoder
# layer for a copy of its weights, zero or filled, for torch's fast path.
_BUFFERS = re.compile(
    r"(^|\.)(version|_float_tensor)$|layers\.\d+\.(in_proj|out_proj|fc[12])_(weight|bias)$"
)
# Few, and with no magnitude to compare with a weight's. What has one dimension is never pruned.
# Nor are weights that are divided by their norm, which may not be zero.
_NEVER_PRUNED = re.compile(
    r"bias|embed_positions|layer_?norm|weight_[gv]$|\.parametrizations\."
)
_SKIP = "--prune-skip (of fairseq-seqkd prune: --skip)"
_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


def aliases_of(tensors):
    """{the first name of each tensor: all of its names}.

    Args:
        tensors: {name: tensor}, such as ``model.state_dict()``, where shared ones have several
    """
    found, alike = {}, defaultdict(list)
    for name, tensor in tensors.items():
        same = alike[tensor.shape, tensor.dtype]
        first = next((n for n in same if _is_shared(tensor, tensors[n])), name)
        found.setdefault(first, []).append(name)
        if first == name:
            same.append(name)
    return found


def parameters_of(tensors):
    """{name: tensor} of a model's parameters, each of them once.

    Args:
        tensors: {name: tensor} of a checkpoint's ``model``
    """
    own = {name: tensor for name, tensor in tensors.items() if not _BUFFERS.search(name)}
    return {name: own[name] for name in aliases_of(own)}


def _is_shared(one, other):
    """Whether two tensors of one shape are one parameter.

    Averaging checkpoints makes copies of it. But biases and layer norms are alike before
    training, and so are layers that are pruned as a whole.
    """
    if one.data_ptr() == other.data_ptr():
        return True
    if one.dim() < 2 or one.flatten()[-1] != other.flatten()[-1]:
        return False
    signs = torch.signbit(one), torch.signbit(other)  # 0.0 and -0.0 are equal
    return torch.equal(one, other) and torch.equal(*signs) and bool(one.any())


def nonzero(tensors):
    """How many of their numbers are not zero."""
    return sum(int(torch.count_nonzero(tensor)) for tensor in tensors.values())


def class_of(name):
    """The class of a parameter: its layer, or the embedding, attention or output layer.

    These are See et al.'s (2016, arXiv 1606.09274, section 3.1), which are those of an LSTM; a
    Transformer's layer is a class in the same way.

    Args:
        name: such as ``decoder.layers.0.fc1.weight``, which is of ``decoder.layers.0``
    """
    parts = name.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if number is not None:
        return ".".join(parts[: number + 1])
    layer = re.search(r"_l(\d+)(_reverse)?$", name)  # torch's LSTM keeps all layers in one
    return ".".join([*parts[:-1][:2], *(layer.groups()[:1] if layer else ())])


def share_of_zeros(tensors):
    """The share of their numbers that is zero, from 0 to 1."""
    return 1 - nonzero(tensors) / max(sum(tensor.numel() for tensor in tensors.values()), 1)


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
        heads, ffn: lists of :class:`Units`
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
