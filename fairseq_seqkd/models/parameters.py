"""The parameters of a model or a checkpoint, by name, each counted once."""

import re
from collections import defaultdict

import torch

# Kept beside the parameters in fairseq's checkpoints. fairseq 0.12.2 has room in every encoder
# layer for a copy of its weights, zero or filled, for torch's fast path.
_BUFFERS = re.compile(
    r"(^|\.)(version|_float_tensor)$|layers\.\d+\.(in_proj|out_proj|fc[12])_(weight|bias)$"
)


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


def fraction_of_zeros(tensors):
    """The share of their numbers that is zero, from 0 to 1."""
    return 1 - nonzero(tensors) / max(sum(tensor.numel() for tensor in tensors.values()), 1)
