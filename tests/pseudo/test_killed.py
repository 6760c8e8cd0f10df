"""Processes that are killed at any moment, and started again."""

import multiprocessing
import os
import random
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


# Forked by a process without threads: what another thread holds at that moment, such as a
# progress bar's or an allocator's lock, a fork of this one would wait for without end.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["fairseq_seqkd.cli.main"])


def run(arguments):
    """``fairseq-seqkd generate`` with small chunks, without a word."""
    generate.chunk_size = lambda sentences: 4
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    main(["generate", *arguments])


def start(*arguments):
    """It, in a real process."""
    child = PROCESSES.Process(target=run, args=([*map(str, arguments)],))
    child.start()
    return child


def wait(child):
    """Whether it ended well."""
    child.join()
    return child.exitcode == 0


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("backend", ["fairseq", "ctranslate2"])
def test_a_store_is_the_same_after_any_number_of_kills(
    data, teacher, tmp_path, processes, backend
):
    pytest.importorskip("ctranslate2" if backend == "ctranslate2" else "fairseq")
    moments = random.Random(processes)
    common = [data, "--teacher-path", teacher, "--backend", backend, "--threads", 1]

    def command(root, rank):
        share = ["--num-shards", processes, "--shard-id", rank] if processes > 1 else []
        return [*common, "--pseudo-targets", root, *share]

    assert wait(start("--help"))  # the first one has to import everything
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
                running[rank].kill()
                kills += not wait(running.pop(rank))
            else:
                assert all([wait(running.pop(rank)) for rank in sorted(running)])
        assert all([wait(child) for child in running.values()])
        assert wait(start(*command(root, 0)))  # nothing is left to do
        assert files(root) == expected
