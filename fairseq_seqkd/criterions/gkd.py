"""GKD: ``distill`` with Agarwal et al.'s generalised knowledge distillation defaults."""

from dataclasses import dataclass

from fairseq.criterions import register_criterion

from fairseq_seqkd.criterions.config import DistillConfig, Divergence, Prefixes
from fairseq_seqkd.criterions.distill import DistillCriterion


@dataclass
class GKDConfig(DistillConfig):
    """The defaults of GKD."""

    kd_prefixes: Prefixes = "student"
    kd_divergence: Divergence = "jsd"
    kd_alpha: float = 1.0


@register_criterion("gkd", dataclass=GKDConfig)
class GKDCriterion(DistillCriterion):
    """Half of the batches are the student's own samples; generalised Jensen-Shannon.

    Source: Agarwal et al. 2023 (arXiv 2306.13649), algorithm 1; lambda = 1 - beta = 0.5 and
    the divergence's beta = 0.5 as in the paper's mixed setting.
    """

    preset = {"kd_schedule": "constant", "kd_coin": "batch", "kd_sampling_topk": -1}
