"""The sparse file: small, and equal bit for bit."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.export.sparse import pack, read_sparse, unpack, write_sparse
from fairseq_seqkd.export.stock import Student

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
CONFIG = {"task": {"_name": "translation"}, "lr": [0.1], "none": None}


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8) if tensor.numel() else tensor


def equal_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


def pruned(shape, fraction, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    tensor = torch.randn(shape, generator=generator)
    tensor[torch.rand(shape, generator=generator) < fraction] = 0
    return tensor.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fraction", [0, 0.5, 0.99, 1])
@pytest.mark.parametrize("shape", [(7, 9), (16,), (1, 1, 3), (0, 4), ()])
def test_equal_bit_for_bit(tmp_path, shape, fraction, dtype):
    tensor = pruned(shape, fraction, dtype)
    path = str(tmp_path / "student.safetensors")
    write_sparse(Student({"a": tensor}, CONFIG, 7), path)
    student = read_sparse(path)
    assert equal_bits(student.model["a"], tensor)
    assert (student.config, student.updates) == (CONFIG, 7)


SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1.0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(SPECIAL) | st.just(0.0), min_size=1, max_size=70))
def test_any_numbers(numbers):
    tensor = torch.tensor(numbers)
    packed = pack("a", tensor)
    assert equal_bits(unpack("a", tensor.shape, packed), tensor)


def test_shared_tensors_are_written_once_and_shared_again(tmp_path):
    shared = pruned((50, 20), 0.8)
    path = tmp_path / "student.safetensors"
    model = {"a": shared, "b": torch.ones(3), "c": shared}
    write_sparse(Student(model, CONFIG), str(path))
    found = read_sparse(str(path)).model
    assert found["a"].data_ptr() == found["c"].data_ptr()
    assert path.stat().st_size < 1000 * (0.25 * 4 + 1 / 8) + 1000
    assert found.keys() == model.keys()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "student.safetensors"
    write_sparse(Student({"a": pruned((40, 40), 0.8), "b": torch.ones(5)}, CONFIG), str(path))
    return path


@pytest.mark.parametrize("length", [0, 5, 100, 600, -1])
def test_cut_short(file, length):
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(
        ValueError, match="is cut short or damaged: .* export the student again"
    ):
        read_sparse(str(file))


@pytest.mark.parametrize("position", [-1, -700])
def test_changed(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="was changed after it was written: its SHA-256 is"):
        read_sparse(str(file))


def test_changed_configuration(file):
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["content"] = header["__metadata__"]["content"].replace("0.1", "0.2")
    changed = json.dumps(header).encode()
    file.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + size :])
    with pytest.raises(ValueError, match="was changed after it was written"):
        read_sparse(str(file))


def test_another_safetensors_file(tmp_path):
    from safetensors.torch import save_file

    path = str(tmp_path / "other.safetensors")
    save_file({"a": torch.ones(3)}, path)
    with pytest.raises(ValueError, match="has the format None, expected 'fairseq-seqkd sparse"):
        read_sparse(path)


def test_a_header_without_content(tmp_path):
    from safetensors.torch import save_file

    path = str(tmp_path / "other.safetensors")
    save_file({"a": torch.ones(3)}, path, {"format": "fairseq-seqkd sparse 1"})
    with pytest.raises(ValueError, match="its header has no content"):
        read_sparse(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_sparse(str(tmp_path / "none.safetensors"))
