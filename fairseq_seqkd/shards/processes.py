"""Which share of the work is this process's, and how many threads it has for it."""

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """One process among those that share the work.

    Attributes:
        rank: this process's number, from 0
        world_size: how many there are
        on_this_host: how many of them share this machine's cores
    Raises:
        ValueError: the number is not below ``world_size``
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

    def of(self, n_chunks):
        """The indices of this process's chunks: every ``world_size``-th."""
        return range(self.rank, n_chunks, self.world_size)

    @property
    def threads(self):
        """The cores this process may run on, divided among the processes of this host."""
        return max(1, len(os.sched_getaffinity(0)) // self.on_this_host)


def this_share(num_shards=None, shard_id=None, environment=os.environ):
    """The share that the flags give, else torchrun, else Slurm, else all of the work.

    Args:
        num_shards, shard_id: of --num-shards and --shard-id; both or none
        environment: torchrun's RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, or Slurm's
            SLURM_PROCID, SLURM_NTASKS, SLURM_TASKS_PER_NODE
    Raises:
        ValueError: one flag without the other, or a number out of range
    """
    if (num_shards is None) != (shard_id is None):
        raise ValueError("--num-shards and --shard-id go together: give both or none")
    if num_shards is not None:
        # Slurm gives each job its own cores; by hand the processes share this machine's.
        return Share(shard_id, num_shards, 1 if "SLURM_JOB_ID" in environment else num_shards)
    if "RANK" in environment and "WORLD_SIZE" in environment:
        world_size = int(environment["WORLD_SIZE"])
        local = int(environment.get("LOCAL_WORLD_SIZE", world_size))
        return Share(int(environment["RANK"]), world_size, local)
    if "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment:
        # SLURM_TASKS_PER_NODE looks like "2(x3),1"; srun binds tasks to cores or does not,
        # and the affinity mask of an unbound one is the whole node's.
        tasks = re.match(r"\d+", environment.get("SLURM_TASKS_PER_NODE", "1"))
        bound = "SLURM_CPUS_PER_TASK" in environment
        on_node = 1 if bound or not tasks else int(tasks[0])
        return Share(
            int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"]), on_node
        )
    return Share()
