"""Processes that are killed at any moment, and started again."""

import os
import random
import signal
import time

import pytest
import torch
from conftest import load_split

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.shards import sha256

KILLS = 20


def files(root):
    """{path in the store: SHA-256}, whatever is there."""
    return {
        os.path.relpath(os.path.join(folder, name), root): sha256(os.path.join(folder, name))
        for folder, _, names in os.walk(root)
        for name in names
    }


def start(*arguments):
    """``fairseq-seqkd generate`` in a real process; forked, so that it need not import."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            torch.set_num_threads(1)
            main(["generate", *map(str, arguments)])
            status = 0
        finally:
            os._exit(status)
    return child


def wait(child):
    """Whether it ended well."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("backend", ["fairseq", "ctranslate2"])
def test_a_store_is_the_same_after_any_number_of_kills(
    data, teacher, tmp_path, monkeypatch, processes, backend
):
    pytest.importorskip("ctranslate2" if backend == "ctranslate2" else "fairseq")
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 4)
    moments = random.Random(processes)
    common = [data, "--teacher-path", teacher, "--backend", backend, "--threads", 1]

    def command(root, rank):
        share = ["--num-shards", processes, "--shard-id", rank] if processes > 1 else []
        return [*common, "--pseudo-targets", root, *share]

    begin = time.monotonic()
    assert wait(start(*common, "--pseudo-targets", tmp_path / "unbroken"))
    longest = time.monotonic() - begin
    expected = files(tmp_path / "unbroken")
    assert len(load_split(tmp_path / "unbroken" / "best").dataset) == 160

    kills, stores = 0, 0
    while kills < KILLS:
        stores += 1
        root = tmp_path / f"broken-{stores}"
        running = {}
        while not (root / "best").exists():
            for rank in set(range(processes)) - set(running):
                running[rank] = start(*command(root, rank))
            if kills < KILLS:
                time.sleep(moments.uniform(0, longest / processes))
                rank = moments.choice(sorted(running))
                os.kill(running[rank], signal.SIGKILL)
                kills += not wait(running.pop(rank))
            else:
                assert all([wait(running.pop(rank)) for rank in sorted(running)])
        assert all([wait(child) for child in running.values()])
        assert wait(start(*command(root, 0)))  # nothing is left to do
        assert files(root) == expected
