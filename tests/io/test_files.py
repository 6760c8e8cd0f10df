import contextlib
import fcntl
import os
import signal
import time

import pytest

from fairseq_seqkd.io.files import (
    atomic_directory,
    atomic_file,
    read_json,
    sha256,
    sweep,
    write_json,
)
from fairseq_seqkd.io.locks import locked, wait_until


def test_file_appears_when_whole(tmp_path):
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


def test_new_file_leaves_an_older_one(tmp_path):
    write_json(tmp_path / "file", 1, new=True)
    with pytest.raises(FileExistsError):
        write_json(tmp_path / "file", 2, new=True)
    assert read_json(tmp_path / "file") == 1
    assert os.listdir(tmp_path) == ["file"]


def test_directory_that_is_there_is_left(tmp_path):
    for content in ("first", "second"):
        with contextlib.suppress(FileExistsError), atomic_directory(tmp_path / "d") as folder:
            with open(os.path.join(folder, "a"), "w") as file:
                file.write(content)
    assert (tmp_path / "d" / "a").read_text() == "first"
    assert os.listdir(tmp_path) == ["d"]


def test_directory_appears_when_whole(tmp_path):
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


def test_sweep_removes_what_is_half_written_and_nothing_else(tmp_path):
    child = os.fork()
    if child == 0:
        with atomic_file(tmp_path / "file") as file, atomic_directory(tmp_path / "folder"):
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (tmp_path / ".hidden").write_text("mine")
    (tmp_path / "done.part").write_text("mine")
    assert len(os.listdir(tmp_path)) == 4
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "done.part"]


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "file"
    path.write_text("content")
    child = os.fork()
    if child == 0:
        with locked(path):
            (tmp_path / "held").touch()
            time.sleep(60)
    wait_until((tmp_path / "held").exists, "the child")
    with open(path, "r+b") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(path) as alone:
        assert alone
    assert path.read_text() == "content"


def test_without_locks_it_goes_on_and_says_so(tmp_path, monkeypatch, caplog):
    def refuse(file, how):
        raise OSError(95, "Operation not supported")

    path = tmp_path / "file"
    path.write_text("content")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(path) as alone:
        assert not alone
    assert "cannot be locked here" in caplog.text


def test_waiting_says_now_and_then_for_what(caplog):
    answers = iter([False] * 5 + [True])
    wait_until(lambda: next(answers), "godot", seconds=0.01, tell_every=0.02)
    assert "waiting for godot" in caplog.text
