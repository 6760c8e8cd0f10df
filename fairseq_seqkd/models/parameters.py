"""Finds and counts the parameters of a model or a checkpoint, each shared one once."""

import re
from collections import defaultdict

import torch

# Entries of a state dictionary that are no parameters. fairseq 0.12.2 has buffers in every
# encoder layer for a copy of its weights, zero or filled, for torch's fast path.
_BUFFERS = re.compile(
    r"(^|\.)(version|_float_tensor)$|layers\.\d+\.(in_proj|out_proj|fc[12])_(weight|bias)$"
)


def aliases_of(tensors):
    """Group the names of shared tensors: {first name: all names of the same tensor}.

    Args:
        tensors: {name: tensor}, such as ``model.state_dict()``
    """
    aliases, same_shape = {}, defaultdict(list)
    for name, tensor in tensors.items():
        candidates = same_shape[tensor.shape, tensor.dtype]
        first = next((n for n in candidates if _is_shared(tensor, tensors[n])), name)
        aliases.setdefault(first, []).append(name)
        if first == name:
            candidates.append(name)
    return aliases


def parameters_of(tensors):
    """Select a model's parameters, {name: tensor}, each shared one under its first name.

    Args:
        tensors: {name: tensor} of a checkpoint's ``model``
    """
    parameters = {name: t for name, t in tensors.items() if not _BUFFERS.search(name)}
    return {name: parameters[name] for name in aliases_of(parameters)}


def _is_shared(tensor, other):
    """Whether two tensors of one shape are the same parameter, or copies of it.

    Averaging checkpoints copies shared parameters. Equal values alone prove nothing for biases
    and layer norms, which are equal before training, nor for layers pruned to zero.
    """
    if tensor.data_ptr() == other.data_ptr():
        return True
    if tensor.dim() < 2 or tensor.flatten()[-1] != other.flatten()[-1]:
        return False
    signs = torch.signbit(tensor), torch.signbit(other)  # 0.0 and -0.0 are equal
    return torch.equal(tensor, other) and torch.equal(*signs) and bool(tensor.any())


def count_nonzero(tensors):
    """Count the non-zero elements of all tensors.

    Args:
        tensors: {name: tensor}
    """
    return sum(int(torch.count_nonzero(tensor)) for tensor in tensors.values())


def fraction_of_zeros(tensors):
    """The fraction of all elements that is zero, from 0 to 1.

    Args:
        tensors: {name: tensor}
    """
    return 1 - count_nonzero(tensors) / max(sum(t.numel() for t in tensors.values()), 1)


def class_of(name):
    """The class of a parameter: its layer, or the embedding, attention or output layer.

    Args:
        name: such as ``decoder.layers.0.fc1.weight``, whose class is ``decoder.layers.0``
    Source: See et al. 2016, Compression of Neural Machine Translation Models via Pruning
        (arXiv 1606.09274), section 3.1, for LSTMs; a Transformer's layers are treated alike.
    """
    parts = name.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if number is not None:
        return ".".join(parts[: number + 1])
    layer = re.search(r"_l(\d+)(_reverse)?$", name)  # torch's LSTM keeps all layers in one
    return ".".join([*parts[:-1][:2], *(layer.groups()[:1] if layer else ())])
