import fcntl
import os
import signal
import time

import pytest

from fairseq_seqkd.io.locks import file_lock, wait_until


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "file"
    path.write_text("content")
    child = os.fork()
    if child == 0:
        with file_lock(path):
            (tmp_path / "held").touch()
            time.sleep(60)
    wait_until((tmp_path / "held").exists, "the child")
    with open(path, "r+b") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with file_lock(path) as has_lock:
        assert has_lock
    assert path.read_text() == "content"


def test_without_locks_it_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(95, "Operation not supported")

    path = tmp_path / "file"
    path.write_text("content")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with file_lock(path) as has_lock:
        assert not has_lock
    assert f"cannot lock {path}" in caplog.text


def test_waiting_warns_now_and_then(caplog):
    answers = iter([False] * 5 + [True])
    wait_until(lambda: next(answers), "godot", poll_seconds=0.01, warn_every=0.02)
    assert "waiting for godot" in caplog.text
