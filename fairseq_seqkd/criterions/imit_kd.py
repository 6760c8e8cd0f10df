"""ImitKD: ``distill`` with Lin et al.'s imitation-learning defaults."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum

from fairseq_seqkd.criterions.config import DistillConfig, Divergence, Prefixes
from fairseq_seqkd.criterions.distill import DistillCriterion

# The divergence, and its weight on rows with data targets.
DEFAULTS_BY_LOSS = {
    "opt": {"kd_divergence": "hard", "kd_alpha": 0.0},
    "full": {"kd_divergence": "forward_kl", "kd_alpha": 1.0},
}


@dataclass
class ImitKDConfig(DistillConfig):
    """The defaults of ImitKD."""

    imit_kd_loss: ChoiceEnum(list(DEFAULTS_BY_LOSS)) = field(
        default="opt",
        metadata={
            "help": "opt: data rows learn their targets, student rows the teacher's most "
            "probable token; full: all rows learn the teacher's distribution"
        },
    )
    kd_prefixes: Prefixes = "student"
    kd_divergence: Optional[Divergence] = field(
        default=None,
        metadata={"help": "as for distill (default: hard for opt, forward_kl for full)"},
    )
    kd_alpha: Optional[float] = field(
        default=None,
        metadata={"help": "as for distill (default: 0 for opt, 1 for full)"},
    )


@register_criterion("imit_kd", dataclass=ImitKDConfig)
class ImitKDCriterion(DistillCriterion):
    """The student's own prefixes, ever more of them, labelled by the teacher.

    Source: Lin et al. 2020 (arXiv 2009.07253), section 3 and the authors' code.
    """

    def __init__(self, task, cfg):
        for name, value in DEFAULTS_BY_LOSS[str(cfg.imit_kd_loss)].items():
            if cfg[name] is None:
                cfg[name] = value
        super().__init__(task, cfg)
