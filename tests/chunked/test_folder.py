import hashlib
import os

import pytest

from fairseq_seqkd.chunked.folder import ChunkFolder


@pytest.fixture
def folder(tmp_path):
    folder = ChunkFolder(str(tmp_path), "npz")
    for index in (0, 2):
        folder.write(index, f"content {index}".encode())
    return folder


def test_name_carries_number_and_sum(folder):
    digest = hashlib.sha256(b"content 2").hexdigest()[:16]
    assert os.path.basename(folder.find()[2]) == f"chunk-00002-{digest}.npz"
    assert open(folder.find()[2], "rb").read() == b"content 2"


def test_missing(folder, tmp_path):
    assert folder.missing(4) == [1, 3]
    assert ChunkFolder(str(tmp_path / "none"), "npz").missing(2) == [0, 1]


def test_other_files_are_not_chunks(folder, tmp_path):
    for name in ("sums.json", ".chunk-00001-0123456789abcdef.npz.x.part", "chunk-00001.npz"):
        (tmp_path / name).write_bytes(b"")
    assert sorted(folder.find()) == [0, 2]


def test_written_again_is_the_same_file(folder, tmp_path):
    before = sorted(os.listdir(tmp_path))
    folder.write(2, b"content 2")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("harm", [b"content 3", b"content", b"content 2 ", b""])
def test_damage_is_found(folder, harm):
    with open(folder.find()[2], "wb") as file:
        file.write(harm)
    assert folder.remove_damaged([0, 1]) == []
    assert len(folder.remove_damaged(range(3))) == 1
    assert folder.missing(3) == [1, 2]
    assert folder.remove_damaged(range(3)) == []
