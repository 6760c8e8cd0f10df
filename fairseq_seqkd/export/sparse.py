"""A pruned student as a small file: where its weights are not zero, and what they are there.

A safetensors file, for each tensor NAME, once if it is shared:
    mask/NAME, values/NAME   one bit a number, and the numbers whose bit is 1; or
    dense/NAME               the tensor, where that is smaller
and in the header, as strings: the format, everything else as JSON, and a SHA-256 over it all.
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
# An integer type of a number's size: -0.0 is not 0 bit for bit.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def write(student, path):
    """Write a student; the file is there whole or not at all.

    Args:
        student: `Student`
        path: the file
    """
    names = aliases_of(student.model)
    tensors = {}
    for name in names:
        tensors.update(packed(name, student.model[name].detach().cpu().contiguous()))
    content = json.dumps(
        {
            "config": student.config,
            "updates": student.updates,
            "shapes": {name: list(student.model[name].shape) for name in names},
            "names": names,
        },
        sort_keys=True,
    )
    header = {"format": _FORMAT, "content": content, "sha256": checksum(content, tensors)}
    with atomic_file(path) as file:
        file.write(save(tensors, header))


def read(path):
    """The `Student` in a file, bit for bit as written.

    Raises:
        FileNotFoundError: there is no such file
        ValueError: it is cut short, changed, or was not written by `write`
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"no file {path!r}. Expected one that fairseq-seqkd export --to sparse wrote."
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if header.get("format") != _FORMAT:
        raise ValueError(
            f"{path!r} has the format {header.get('format')!r}, expected {_FORMAT!r}: a file "
            "that fairseq-seqkd export --to sparse wrote"
        )
    if not {"content", "sha256"} <= set(header):
        raise _damaged(path, "its header has no content")
    found = checksum(header["content"], tensors)
    if found != header["sha256"]:
        raise ValueError(
            f"{path!r} was changed after it was written: its SHA-256 is {found}, expected "
            f"{header['sha256']}. Export the student again."
        )
    content = json.loads(header["content"])
    model = {}
    for first, names in content["names"].items():
        tensor = unpacked(first, content["shapes"][first], tensors)
        model.update(dict.fromkeys(names, tensor))
    return Student(model, content["config"], content["updates"])


def _damaged(path, found):
    return ValueError(
        f"{path!r} is cut short or damaged: {found}. Expected a file that fairseq-seqkd export "
        "--to sparse wrote; export the student again."
    )


def packed(name, tensor):
    """A tensor as one or two, whatever takes less."""
    if tensor.numel() == 0 or tensor.element_size() not in _BITS:
        return {f"dense/{name}": tensor}
    bits = tensor.flatten().view(_BITS[tensor.element_size()]) != 0
    values = tensor.flatten()[bits]
    mask = torch.from_numpy(np.packbits(bits.numpy()))
    if (
        mask.numel() + values.numel() * values.element_size()
        >= tensor.numel() * tensor.element_size()
    ):
        return {f"dense/{name}": tensor}
    return {f"mask/{name}": mask, f"values/{name}": values}


def unpacked(name, shape, tensors):
    """What `packed` was given."""
    if f"dense/{name}" in tensors:
        return tensors[f"dense/{name}"]
    values = tensors[f"values/{name}"]
    size = int(np.prod(shape, dtype=np.int64))
    bits = np.unpackbits(tensors[f"mask/{name}"].numpy(), count=size).astype(bool)
    tensor = torch.zeros(size, dtype=values.dtype)
    tensor[torch.from_numpy(bits)] = values
    return tensor.view(shape)


def checksum(content, tensors):
    """The SHA-256 of a file's content, as a hexadecimal string."""
    digest = hashlib.sha256(content.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
