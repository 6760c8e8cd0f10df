"""Seq-Inter: ``distill`` with Kim & Rush's interpolation defaults."""

from dataclasses import dataclass

from fairseq.criterions import register_criterion

from fairseq_seqkd.criterions.config import DistillConfig, Targets
from fairseq_seqkd.criterions.distill import DistillCriterion


@dataclass
class SeqInterConfig(DistillConfig):
    """The defaults of Seq-Inter."""

    kd_targets: Targets = "closest"
    kd_alpha: float = 0.0


@register_criterion("seq_inter", dataclass=SeqInterConfig)
class SeqInterCriterion(DistillCriterion):
    """Cross-entropy on the n-best hypothesis closest to gold; meant for fine-tuning.

    Source: Kim & Rush 2016 (arXiv 1606.07947), section 3.3.
    """
