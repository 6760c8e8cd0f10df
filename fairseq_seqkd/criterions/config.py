"""The configuration of a distillation criterion: axes, their parameters, and weights."""

import math
from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum
from omegaconf import II

from fairseq_seqkd.axis_config import choice_type, config_with_parameters
from fairseq_seqkd.losses.divergences import DIVERGENCES
from fairseq_seqkd.losses.support import LEFTOVER
from fairseq_seqkd.losses.text_weighting import NLL_WEIGHTINGS, SENTENCE_WEIGHTINGS
from fairseq_seqkd.losses.weighting import WEIGHTINGS
from fairseq_seqkd.prefixes import PREFIXES
from fairseq_seqkd.pseudo.selectors import SELECTORS, Sampled
from fairseq_seqkd.registry import flag
from fairseq_seqkd.teacher import TeacherConfig

Targets = ChoiceEnum(["gold", *SELECTORS])
AXES = (PREFIXES, DIVERGENCES, WEIGHTINGS, NLL_WEIGHTINGS, SENTENCE_WEIGHTINGS)
Prefixes, Divergence, Weighting, NLLWeighting, SentenceWeighting = map(choice_type, AXES)
Leftover = choice_type(LEFTOVER)


AxisParameters = config_with_parameters(
    "AxisParameters", "The parameters of all options of all axes.", AXES, bases=(TeacherConfig,)
)


@dataclass
class DistillConfig(AxisParameters):
    """Flags of ``distill``: an option for each axis, and weights; presets change defaults."""

    kd_targets: Targets = field(
        default="gold",
        metadata={
            "help": "the target to train on: gold, the teacher's best hypothesis, its n-best "
            "hypothesis closest to gold, most like all others of the list (mbr), or of the "
            "highest external score (scores), or another one of the list each epoch (sampled); "
            "all but gold: --task translation_seqkd"
        },
    )
    sampled_temperature: Optional[float] = field(
        default=None,
        metadata={
            "help": "--kd-targets sampled: a hypothesis is drawn with probability proportional "
            "to exp(total log-probability / temperature) (default: 1)"
        },
    )
    kd_prefixes: Prefixes = field(
        default="data",
        metadata={
            "help": "whose history the decoder is conditioned on in training: the data's, "
            "or that which the student generates, alone or interleaved with the teacher"
        },
    )
    kd_divergence: Divergence = field(
        default="forward_kl",
        metadata={"help": "how the teacher's and the student's distributions are compared"},
    )
    kd_student_divergence: Optional[Divergence] = field(
        default=None,
        metadata={
            "help": "the divergence on rows that the student generated (default: "
            "--kd-divergence)"
        },
    )
    kd_weighting: Weighting = field(
        default="uniform",
        metadata={"help": "how much the divergence counts from position to position"},
    )
    nll_weighting: NLLWeighting = field(
        default="uniform",
        metadata={
            "help": "how much the target's NLL counts from token to token, in training; not "
            "uniform: also in rows that the student generated, which need no teacher then"
        },
    )
    sentence_weighting: SentenceWeighting = field(
        default="uniform",
        metadata={"help": "how much all of a sentence's loss counts, in training"},
    )
    kd_alpha: float = field(
        default=0.5,
        metadata={
            "help": "weight of the teacher's distribution beside the target's NLL, in [0, 1]; "
            "on rows that the student generated it is 1"
        },
    )
    gold_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of the gold target's NLL in the whole loss, in [0, 1]; for use "
            "with pseudo-targets or the student's prefixes"
        },
    )
    kd_passes: int = field(
        default=1,
        metadata={
            "help": "the divergence is a mean over so many passes of the decoder: the first on "
            "the data's prefixes, each other one on the most probable tokens of the one before"
        },
    )
    kd_temperature: float = field(
        default=1.0,
        metadata={
            "help": "divides the logits of both before they are compared, > 0; the "
            "divergence is multiplied by its square"
        },
    )
    kd_cache: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder that fairseq-seqkd cache made: training needs no teacher then; "
            "with --teacher-path, a cache of another teacher is refused. DATA1:DATA2 take "
            "CACHE1:CACHE2"
        },
    )
    kd_top_k: Optional[int] = field(
        default=None,
        metadata={
            "help": "compare on the teacher's k most probable symbols and what is left "
            "(default: on the whole vocabulary, or what --kd-cache has)"
        },
    )
    kd_leftover: Optional[Leftover] = field(
        default=None,
        metadata={
            "help": "what becomes of the mass beside the top k: one more outcome (tail, the "
            "default), scaled away on both sides (renormalise), or left out (drop)"
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "epsilon of the NLL terms, in [0, 1); 0 means no label smoothing"},
    )
    report_accuracy: bool = field(
        default=False, metadata={"help": "log the student's top-1 accuracy"}
    )
    sentence_avg: bool = II("optimization.sentence_avg")
    seed: int = II("common.seed")
    train_subset: str = II("dataset.train_subset")
    max_update: int = II("optimization.max_update")
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    disable_validation: bool = II("dataset.disable_validation")


def check_config(cfg):
    """Raise a ValueError that names the first flag out of its range."""

    def expect(is_valid, name, expected):
        if not is_valid:
            raise ValueError(f"{flag(name)} is {cfg[name]}, expected {expected}")

    expect(0 <= cfg.kd_alpha <= 1, "kd_alpha", "a number from 0 to 1")
    expect(0 <= cfg.gold_weight <= 1, "gold_weight", "a number from 0 to 1")
    expect(cfg.kd_passes >= 1, "kd_passes", "a whole number from 1 upwards")
    expect(0 < cfg.kd_temperature <= 1000, "kd_temperature", "a number above 0, up to 1000")
    expect(0 <= cfg.label_smoothing < 1, "label_smoothing", "from 0 to below 1")
    expect(cfg.kd_top_k is None or cfg.kd_top_k >= 1, "kd_top_k", "a whole number above 0")
    expect(
        cfg.sampled_temperature is None or 0 < cfg.sampled_temperature < math.inf,
        "sampled_temperature",
        "a number above 0",
    )
    expect(
        cfg.sampled_temperature is None or str(cfg.kd_targets) == Sampled.name,
        "sampled_temperature",
        "--kd-targets sampled beside it",
    )
    reduced = cfg.kd_top_k or cfg.kd_cache
    expect(
        cfg.kd_leftover is None or reduced, "kd_leftover", "--kd-top-k or --kd-cache beside it"
    )
