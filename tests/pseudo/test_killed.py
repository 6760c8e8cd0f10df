"""Processes that are killed at random moments, and started again."""

import functools
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, files, load_split
from processes import (
    LateHost,
    dies_while_writing,
    dies_without_locks,
    ended_well,
    start_command,
    without_locks,
)

KILLS = 20


def start(*arguments, **options):
    return start_command("generate", *arguments, **options)


@pytest.fixture
def common(data, teacher):
    """The flags of all stores here but their folder."""
    return [data, "--teacher-path", teacher, "--engine", "fairseq", "--threads", 1]


@pytest.fixture
def unbroken(common, tmp_path):
    """The files of a store that one process made without a break."""
    assert ended_well(start(*common, "--pseudo-targets", tmp_path / "unbroken"))
    return files(tmp_path / "unbroken")


@pytest.fixture
def mono(text, tmp_path):
    """Flags: the training text, which has some lines twice."""
    (tmp_path / "more").write_bytes((text / "train.src").read_bytes()[:999])
    return ["--text", text / "train.src", tmp_path / "more", "--exclude", text / "test.src"]


@pytest.mark.parametrize(
    "engine, processes, prepare, from_text",
    [
        *[(engine, n, None, False) for engine in ("fairseq", "ctranslate2") for n in (1, 2)],
        pytest.param("fairseq", 2, without_locks, False, id="fairseq-2-without-locks"),
        pytest.param("fairseq", 2, None, True, id="fairseq-2-from-text"),
    ],
)
def test_a_store_is_the_same_after_any_number_of_kills(
    data, teacher, tmp_path, processes, engine, prepare, from_text, mono
):
    pytest.importorskip("ctranslate2" if engine == "ctranslate2" else "fairseq")
    moments = random.Random(processes)
    common = [data, "--teacher-path", teacher, "--engine", engine, "--threads", 1]
    common += ["--accept-unfinished", 1, *(mono if from_text else [])]

    def command(root, rank):
        worker = ["--num-shards", processes, "--shard-id", rank] if processes > 1 else []
        return [*common, "--pseudo-targets", root, *worker]

    assert ended_well(start("--help"))  # the first one has to import everything
    begin = time.monotonic()
    assert ended_well(start(*common, "--pseudo-targets", tmp_path / "unbroken"))
    longest = time.monotonic() - begin
    expected = files(tmp_path / "unbroken")
    n_translated = len(load_split(tmp_path / "unbroken" / "best").dataset)
    assert 120 < n_translated < 160 if from_text else n_translated == 160

    kills, stores, most = 0, 0, 5 if prepare or from_text else KILLS
    while kills < most:
        stores += 1
        root = tmp_path / f"broken-{stores}"
        running = {}
        while not (root / "best").exists():
            for rank in set(range(processes)) - set(running):
                running[rank] = start(*command(root, rank), prepare=prepare)
            if kills < most:
                time.sleep(moments.uniform(0, longest / processes))
                rank = moments.choice(sorted(running))
                running[rank].kill()
                kills += not ended_well(running.pop(rank))
            else:
                assert all([ended_well(running.pop(rank)) for rank in sorted(running)])
        assert all([ended_well(child) for child in running.values()])
        assert ended_well(start(*command(root, 0), prepare=prepare))  # nothing is left to do
        assert files(root) == expected


def test_killed_in_every_step_of_reading_text(common, mono, tmp_path):
    """The folder of the text has 15 files, flushed one by one, and then the store begins."""
    common = [*common, "--accept-unfinished", 1, *mono]
    assert ended_well(start(*common, "--pseudo-targets", tmp_path / "unbroken"))
    flags = [*common, "--pseudo-targets", tmp_path / "store"]
    for n_flushes in (0, 5, 15, 16, 2):
        dying = functools.partial(dies_while_writing, n_flushes)
        assert not ended_well(start(*flags, prepare=dying))
        assert not (tmp_path / "store" / "best").exists()
    running = [start(*flags, "--num-shards", 2, "--shard-id", rank) for rank in range(2)]
    assert all([ended_well(child) for child in running])
    assert files(tmp_path / "store") == files(tmp_path / "unbroken")


def test_text_without_locks(common, mono, tmp_path):
    common = [*common, "--accept-unfinished", 1, *mono]
    assert ended_well(start(*common, "--pseudo-targets", tmp_path / "unbroken"))
    flags = [*common, "--pseudo-targets", tmp_path / "store"]
    by_hand = [["--num-shards", 2, "--shard-id", rank] for rank in range(2)]
    # Workers that are known to be on several hosts wait for what they see late.
    for shards, prepare in (
        (by_hand, [without_locks] * 2),
        ([[], []], [LateHost(rank, 2) for rank in range(2)]),
    ):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        running = [start(*flags, *one, prepare=p) for one, p in zip(shards, prepare)]
        assert all([ended_well(child) for child in running])
        assert files(tmp_path / "store") == files(tmp_path / "unbroken")


def test_without_locks_nothing_half_written_stays(common, unbroken, tmp_path):
    flags = [*common, "--pseudo-targets", tmp_path / "store"]
    assert not ended_well(start(*flags, prepare=dies_without_locks))
    assert list((tmp_path / "store" / "nbest").glob(".*.part"))
    assert ended_well(start(*flags, prepare=without_locks))
    assert files(tmp_path / "store") == unbroken


def test_hosts_that_see_renames_late_make_the_same_store(common, unbroken, tmp_path):
    """Each sees the chunks, the manifest and the data-bin of the other half a second late."""
    root = tmp_path / "late"
    flags = [*common, "--pseudo-targets", root]
    running = [start(*flags, prepare=LateHost(rank, 2)) for rank in range(2)]
    assert all([ended_well(child) for child in running])
    assert files(root) == unbroken


TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--max_restarts", "3"]
SCRIPT = "import sys; from processes import run_command; run_command(sys.argv[1:])"


def test_torchrun_starts_killed_workers_again(common, unbroken, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    root, moments = tmp_path / "store", random.Random(3)
    command = [sys.executable, *TORCHRUN, "--monitor_interval", "0.1", tmp_path / "script.py"]
    flags = ["generate", *common, "--pseudo-targets", root]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    with subprocess.Popen(
        [*map(str, [*command, *flags])],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    ) as torchrun:
        for n_chunks in (2, 12):
            while len(list((root / "nbest").glob("chunk-*"))) < n_chunks:
                assert torchrun.poll() is None, torchrun.stderr.read()
                time.sleep(0.005)
            os.kill(moments.choice(children(torchrun.pid)), 9)
        assert torchrun.wait() == 0, torchrun.stderr.read()
    assert files(root) == unbroken


def children(pid):
    """The processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found
