"""Seq-KD: ``distill`` with Kim & Rush's sequence-level defaults."""

from dataclasses import dataclass

from fairseq.criterions import register_criterion

from fairseq_seqkd.criterions.config import DistillConfig, Targets
from fairseq_seqkd.criterions.distill import DistillCriterion


@dataclass
class SeqKDConfig(DistillConfig):
    """The defaults of Seq-KD."""

    kd_targets: Targets = "best"
    kd_alpha: float = 0.0


@register_criterion("seq_kd", dataclass=SeqKDConfig)
class SeqKDCriterion(DistillCriterion):
    """Cross-entropy on the teacher's best beam hypothesis.

    Source: Kim & Rush 2016 (arXiv 1606.07947), section 3.2.
    """
