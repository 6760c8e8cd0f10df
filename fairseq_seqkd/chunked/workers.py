"""The workers of a job: rank, world size, and threads of this process."""

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Worker:
    """One process of several that divide a job among them.

    Attributes:
        rank: the number of this process, from 0
        world_size: how many processes there are
        on_this_host: how many of them run on this machine
    Raises:
        ValueError: the rank is not below ``world_size``
    """

    rank: int = 0
    world_size: int = 1
    on_this_host: int = 1

    def __post_init__(self):
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"this is shard {self.rank} of {self.world_size}: expected --shard-id from 0 "
                f"to --num-shards - 1, which is {self.world_size - 1}"
            )

    def chunk_indices(self, n_chunks):
        """The indices of this worker's chunks: every ``world_size``-th."""
        return range(self.rank, n_chunks, self.world_size)

    @property
    def spans_hosts(self):
        """Whether the job is known to have workers on other machines."""
        return self.world_size > self.on_this_host

    @property
    def threads(self):
        """The cores that this process may use, divided by the workers on this machine."""
        return max(1, available_cores() // self.on_this_host)


def available_cores():
    """The number of cores this process may use; all cores on systems without affinity."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def this_worker(num_shards=None, shard_id=None, environment=os.environ):
    """The `Worker` of this process: from the flags, else torchrun, else Slurm, else alone.

    Args:
        num_shards, shard_id: the values of --num-shards and --shard-id; both or neither
        environment: torchrun's RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, or Slurm's
            SLURM_PROCID, SLURM_NTASKS, SLURM_TASKS_PER_NODE
    Raises:
        ValueError: one flag without the other, or a number out of range
    """
    if (num_shards is None) != (shard_id is None):
        raise ValueError("--num-shards and --shard-id go together: give both or neither")
    if num_shards is not None:
        # Slurm gives each job its own cores; without it all processes are on this machine.
        on_this_host = 1 if "SLURM_JOB_ID" in environment else num_shards
        return Worker(shard_id, num_shards, on_this_host)
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _torchrun_worker(environment)
    if "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment:
        return _slurm_worker(environment)
    return Worker()


def _torchrun_worker(environment):
    world_size = int(environment["WORLD_SIZE"])
    local = int(environment.get("LOCAL_WORLD_SIZE", world_size))
    return Worker(int(environment["RANK"]), world_size, local)


def _slurm_worker(environment):
    # SLURM_TASKS_PER_NODE looks like "2(x3),1"; srun binds tasks to cores only
    # if asked to, and the affinity mask of an unbound task is the whole node's.
    tasks = re.match(r"\d+", environment.get("SLURM_TASKS_PER_NODE", "1"))
    bound = "SLURM_CPUS_PER_TASK" in environment
    on_node = 1 if bound or not tasks else int(tasks[0])
    return Worker(int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"]), on_node)
