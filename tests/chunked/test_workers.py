import os

import pytest

from fairseq_seqkd.chunked.workers import Worker, available_cores, this_worker

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "5", "SLURM_NTASKS": "6"}


@pytest.mark.parametrize(
    "flags, environment, expected",
    [
        ((None, None), {}, Worker(0, 1, 1)),
        ((None, None), TORCHRUN, Worker(3, 8, 4)),
        ((None, None), SLURM, Worker(5, 6, 1)),
        ((None, None), {**SLURM, "SLURM_TASKS_PER_NODE": "2(x3)"}, Worker(5, 6, 2)),
        (
            (None, None),
            {**SLURM, "SLURM_TASKS_PER_NODE": "2(x3)", "SLURM_CPUS_PER_TASK": "4"},
            Worker(5, 6, 1),
        ),
        ((None, None), {**SLURM, **TORCHRUN}, Worker(3, 8, 4)),
        ((5, 2), {}, Worker(2, 5, 5)),
        ((5, 2), TORCHRUN, Worker(2, 5, 5)),
        ((100, 99), {"SLURM_JOB_ID": "7"}, Worker(99, 100, 1)),
    ],
)
def test_flags_then_torchrun_then_slurm_then_alone(flags, environment, expected):
    assert this_worker(*flags, environment=environment) == expected


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_every_chunk_belongs_to_one_worker(world_size):
    chunks = [list(Worker(rank, world_size).chunk_indices(11)) for rank in range(world_size)]
    assert sorted(sum(chunks, [])) == list(range(11))
    assert max(map(len, chunks)) - min(map(len, chunks)) <= 1


@pytest.mark.parametrize("rank, world_size", [(2, 2), (-1, 2), (0, 0)])
def test_number_out_of_range(rank, world_size):
    with pytest.raises(ValueError, match=f"shard {rank} of {world_size}: expected --shard-id"):
        this_worker(world_size, rank, environment={})


@pytest.mark.parametrize("flags", [(2, None), (None, 0)])
def test_one_flag_without_the_other(flags):
    with pytest.raises(ValueError, match="go together"):
        this_worker(*flags, environment={})


def test_threads_are_cores_divided_by_the_processes_of_this_host():
    cores = available_cores()
    assert Worker().threads == cores
    assert Worker(0, 8, cores).threads == 1
    assert Worker(0, 1000, 1000).threads == 1


def test_available_cores_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert available_cores() == os.cpu_count()


def test_available_cores_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8}, raising=False)
    assert available_cores() == 3
