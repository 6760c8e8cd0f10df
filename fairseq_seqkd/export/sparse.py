"""Exports a pruned student as a small file that holds only its non-zero weights.

The file is a safetensors file. For each tensor NAME (once, if it is shared) it has
    mask/NAME     one bit a weight, 1 where it is not zero, and
    values/NAME   the non-zero weights; or, where that is smaller,
    dense/NAME    the whole tensor.
Its header has, as strings: the format, everything else as JSON, and a SHA-256 of it all.
"""

import hashlib
import json
import os

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fairseq_seqkd.export.stock import Student
from fairseq_seqkd.io.files import atomic_file
from fairseq_seqkd.models.parameters import aliases_of

SUFFIX = ".safetensors"
_FORMAT = "fairseq-seqkd sparse 1"
# Integer types by the bytes of a number. As integers, -0.0 is not zero: its sign bit is kept.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def write_sparse(student, path):
    """Write a student to a sparse file, atomically.

    Args:
        student: `Student`
        path: of the file
    """
    aliases = aliases_of(student.model)
    tensors = {}
    for name in aliases:
        tensors.update(pack(name, student.model[name].detach().cpu().contiguous()))
    content = json.dumps(
        {
            "config": student.shipped_config,
            "updates": student.updates,
            "shapes": {name: list(student.model[name].shape) for name in aliases},
            "names": aliases,
        },
        sort_keys=True,
    )
    header = {"format": _FORMAT, "content": content, "sha256": checksum(content, tensors)}
    with atomic_file(path) as file:
        file.write(save(tensors, header))


def read_sparse(path):
    """Read the `Student` in a sparse file; its tensors are bit for bit those written.

    Raises:
        FileNotFoundError: there is no such file
        ValueError: the file is cut short, changed, or was not written by `write_sparse`
    """
    header, tensors = _read_safetensors(path)
    _check_header(path, header, tensors)
    content = json.loads(header["content"])
    model = {}
    for first, names in content["names"].items():
        tensor = unpack(first, content["shapes"][first], tensors)
        model.update(dict.fromkeys(names, tensor))
    return Student(model, content["config"], content["updates"])


def _read_safetensors(path):
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"no file {path!r}. Expected one that fairseq-seqkd export --to sparse wrote."
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _check_header(path, header, tensors):
    if header.get("format") != _FORMAT:
        raise ValueError(
            f"{path!r} has the format {header.get('format')!r}, expected {_FORMAT!r}: a file "
            "that fairseq-seqkd export --to sparse wrote"
        )
    if not {"content", "sha256"} <= set(header):
        raise _damaged(path, "its header has no content")
    actual = checksum(header["content"], tensors)
    if actual != header["sha256"]:
        raise ValueError(
            f"{path!r} was changed after it was written: its SHA-256 is {actual}, expected "
            f"{header['sha256']}. Export the student again."
        )


def _damaged(path, reason):
    return ValueError(
        f"{path!r} is cut short or damaged: {reason}. Expected a file that fairseq-seqkd "
        "export --to sparse wrote; export the student again."
    )


def pack(name, tensor):
    """Pack a tensor as its non-zero mask and values, or densely if that is smaller.

    Args:
        name: of the tensor
        tensor: contiguous, on the CPU, of any shape and type
    Returns:
        {"mask/NAME": (bytes,) uint8, "values/NAME": (non-zero weights,)} or
        {"dense/NAME": tensor}
    """
    if tensor.numel() == 0 or tensor.element_size() not in _INTEGERS:
        return {f"dense/{name}": tensor}
    nonzero_mask = tensor.flatten().view(_INTEGERS[tensor.element_size()]) != 0
    values = tensor.flatten()[nonzero_mask]
    packed_mask = torch.from_numpy(np.packbits(nonzero_mask.numpy()))
    packed_bytes = packed_mask.numel() + values.numel() * values.element_size()
    if packed_bytes >= tensor.numel() * tensor.element_size():
        return {f"dense/{name}": tensor}
    return {f"mask/{name}": packed_mask, f"values/{name}": values}


def unpack(name, shape, tensors):
    """Undo `pack`.

    Args:
        name: of the tensor
        shape: its shape
        tensors: {key: tensor} that `pack` returned, and maybe others
    Returns:
        the tensor that `pack` was given
    """
    if f"dense/{name}" in tensors:
        return tensors[f"dense/{name}"]
    values = tensors[f"values/{name}"]
    size = int(np.prod(shape, dtype=np.int64))
    nonzero_mask = np.unpackbits(tensors[f"mask/{name}"].numpy(), count=size).astype(bool)
    tensor = torch.zeros(size, dtype=values.dtype)
    tensor[torch.from_numpy(nonzero_mask)] = values
    return tensor.view(shape)


def checksum(content, tensors):
    """SHA-256 of a file's JSON content and tensors, as a hexadecimal string."""
    digest = hashlib.sha256(content.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
