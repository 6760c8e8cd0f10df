"""Word-KD: ``distill`` with Kim & Rush's word-level defaults."""

from dataclasses import dataclass

from fairseq.criterions import register_criterion

from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion


@dataclass
class WordKDConfig(DistillConfig):
    """The defaults of Word-KD."""


@register_criterion("word_kd", dataclass=WordKDConfig)
class WordKDCriterion(DistillCriterion):
    """Gold targets; half cross-entropy, half the teacher's distribution.

    Source: Kim & Rush 2016 (arXiv 1606.07947), section 3.1 and alpha of section 4.
    """
