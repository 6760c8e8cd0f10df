import fcntl
import os
import signal
import time

import pytest

from fairseq_seqkd.io.locks import file_lock, seen_at_last, wait_until


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


@pytest.mark.parametrize("answers, expected", [([True], True), ([False, False, True], True)])
def test_what_is_seen_late_is_seen_at_last(answers, expected):
    answers = iter(answers)
    assert seen_at_last(lambda: next(answers), poll_seconds=0.01) == expected


def test_what_is_not_there_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr("fairseq_seqkd.io.locks.SECONDS_SEEN_LATE", 0.02)
    assert not seen_at_last(lambda: False, poll_seconds=0.01)
