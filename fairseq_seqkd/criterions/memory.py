"""State that a method keeps from batch to batch, and how it survives an interruption.

fairseq saves the task's state with every checkpoint, and does not read it when a training is
resumed. So it is read here, from the file that fairseq resumed.
"""

import os

import torch
from fairseq.distributed import utils as distributed_utils

from fairseq_seqkd.criterions import validation
from fairseq_seqkd.models.checkpoints import read_checkpoint
from fairseq_seqkd.prefixes import PolicyMemory

KEY = "fairseq_seqkd"  # in the task's state


class Memory:
    """Named tensors that are saved with the task's state, the same on every process.

    Args:
        task: the student's
        cfg: `DistillConfig`, which names the checkpoint that a training resumes
        names: of the tensors that the method remembers
    """

    def __init__(self, task, cfg, names):
        self.cfg = cfg
        self.names = names
        self.values = {}
        self._is_restored = False
        task.state.merge_state_dict({KEY: self.values})

    def at(self, step):
        """The memory, gathering and update of `PositionStatistics`, by name.

        Validation sees a copy, so that it changes nothing, and gathers nothing, since
        processes may have other numbers of batches there.

        Args:
            step: `TrainingStep`; None in validation
        Raises:
            ValueError: the checkpoint that was resumed has no such state
        """
        if step is None:
            return {"memory": dict(self.values)}
        self._restore(step)
        return {
            "memory": self.values,
            "gather": gather_over_ranks,
            "update": step.update,
        }

    def of_policy(self, step):
        """The `PolicyMemory` of a training step; raises as `at`."""
        self._restore(step)
        return PolicyMemory(self.values, gather_over_ranks, validation.take_nll())

    def _restore(self, step):
        """Read what was saved, once in a training that goes on."""
        if step.update > 0 and not self._is_restored:
            self.values.update(self._saved())
        self._is_restored = True

    def _saved(self):
        path = self.cfg.restore_file
        if path == "checkpoint_last.pt":  # fairseq's default, in --save-dir
            path = os.path.join(self.cfg.save_dir, path)
        checkpoint = read_checkpoint(path)
        validation.restore(checkpoint)
        state = checkpoint.get("task_state", {}).get(KEY) or {}
        if not set(self.names) <= set(state):
            raise ValueError(
                f"{path!r} was saved by a training that remembers "
                f"{', '.join(sorted(state)) or 'nothing'} from batch to batch, and this one "
                f"remembers {', '.join(self.names)}: it cannot go on from there exactly. "
                "Begin a new training with its weights: --finetune-from-model, and another "
                "--save-dir."
            )
        return state


def gather_over_ranks(values):
    """(n,) the numbers of all data-parallel processes, in the order of their ranks.

    Args:
        values: (n,), of any n; every process has to call this as often as the others
    """
    if distributed_utils.get_data_parallel_world_size() == 1:
        return values
    group = distributed_utils.get_data_parallel_group()
    sizes = distributed_utils.all_gather(values.new_tensor([len(values)]), group)
    sizes = [int(size) for size in sizes]
    padded = torch.nn.functional.pad(values, (0, max(sizes) - len(values)))
    gathered = distributed_utils.all_gather(padded, group)
    return torch.cat([row[:size] for row, size in zip(gathered, sizes)])
