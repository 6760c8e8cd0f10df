"""A warning about methods that begin with a trained student and were given a random one."""

import logging

from fairseq_seqkd.losses.divergences import BOUNDED

logger = logging.getLogger(__name__)


def warn_of_cold_start(cfg, method, update):
    """Warn if a student with random weights learns a bounded divergence on its own text.

    Args:
        cfg: `DistillConfig`
        method: `Method`
        update: the number of updates done so far
    """
    divergences = filter(None, (method.divergence, method.student_divergence))
    bounded = {divergence.func.__name__ for divergence in divergences} & BOUNDED
    if update > 0 or method.prefix_policy is None or not bounded:
        return
    # A file other than fairseq's default is one that the user has trained.
    if cfg.finetune_from_model is None and cfg.restore_file == "checkpoint_last.pt":
        logger.warning(
            "the student has random weights, and %s on its own text has hardly any gradient "
            "there (forward_kl has over a hundred times as much): it will learn next to "
            "nothing for a long time. Begin with a trained student: --finetune-from-model",
            " and ".join(sorted(bounded)),
        )
