import contextlib
import os
import signal

import pytest

from fairseq_seqkd.io.files import (
    atomic_directory,
    atomic_file,
    read_json,
    remove_partial_files,
    sha256,
    write_json,
)


def test_file_appears_when_complete(tmp_path):
    path = tmp_path / "file"
    with atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert os.listdir(tmp_path) == ["file"]


def test_failed_file_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"), atomic_file(path) as file:
        file.write(b"new")
        raise OSError("disk full")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_exclusive_file_keeps_an_existing_one(tmp_path):
    write_json(tmp_path / "file", 1, exclusive=True)
    with pytest.raises(FileExistsError):
        write_json(tmp_path / "file", 2, exclusive=True)
    assert read_json(tmp_path / "file") == 1
    assert os.listdir(tmp_path) == ["file"]


def test_existing_directory_is_kept(tmp_path):
    for content in ("first", "second"):
        with contextlib.suppress(FileExistsError), atomic_directory(tmp_path / "d") as folder:
            with open(os.path.join(folder, "a"), "w") as file:
                file.write(content)
    assert (tmp_path / "d" / "a").read_text() == "first"
    assert os.listdir(tmp_path) == ["d"]


def test_directory_appears_when_complete(tmp_path):
    with atomic_directory(tmp_path / "folder") as folder:
        with open(os.path.join(folder, "a"), "w") as file:
            file.write("1")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "a").read_text() == "1"


def test_failed_directory_leaves_nothing(tmp_path):
    with pytest.raises(OSError), atomic_directory(tmp_path / "folder") as folder:
        with open(os.path.join(folder, "a"), "w") as file:
            file.write("1")
        raise OSError("disk full")
    assert os.listdir(tmp_path) == []


def test_files_have_the_usual_permissions(tmp_path):
    with atomic_file(tmp_path / "ours") as file:
        file.write(b"")
    (tmp_path / "usual").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_equal_json_is_equal_bytes(tmp_path):
    write_json(tmp_path / "1", {"a": 1, "b": [2, None]})
    write_json(tmp_path / "2", {"b": [2, None], "a": 1})
    assert sha256(tmp_path / "1") == sha256(tmp_path / "2")
    assert read_json(tmp_path / "1") == {"a": 1, "b": [2, None]}


def test_sha256_is_the_published_one(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")


def test_an_error_names_the_file_that_could_not_be_written(tmp_path):
    with pytest.raises(OSError, match="No space left on device: .*file"):
        with atomic_file(tmp_path / "file"):
            raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left on device: .*folder"):
        with atomic_directory(tmp_path / "folder"):
            raise OSError(28, "No space left on device")


def test_partial_files_are_removed_and_nothing_else(tmp_path):
    child = os.fork()
    if child == 0:
        with atomic_file(tmp_path / "file") as file, atomic_directory(tmp_path / "folder"):
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (tmp_path / ".hidden").write_text("mine")
    (tmp_path / "done.part").write_text("mine")
    assert len(os.listdir(tmp_path)) == 4
    remove_partial_files(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "done.part"]
