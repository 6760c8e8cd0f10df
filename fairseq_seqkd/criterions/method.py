"""The method that a configuration describes: its axes resolved, and what cannot go together."""

from dataclasses import dataclass
from typing import Any, Callable, Optional, Tuple

from fairseq_seqkd.criterions.config import AXES, DistillConfig, check_config
from fairseq_seqkd.losses.divergences import DIVERGENCES
from fairseq_seqkd.losses.support import LEFTOVER
from fairseq_seqkd.losses.weighting import WEIGHTINGS
from fairseq_seqkd.prefixes import PREFIXES
from fairseq_seqkd.pseudo.selectors import Sampled
from fairseq_seqkd.registry import flag, refuse_unused


@dataclass
class Method:
    """The resolved options of a distillation loss.

    Attributes:
        prefix_policy: an option of PREFIXES; None for the data's prefixes
        divergence: an option of DIVERGENCES
        student_divergence: the one on student rows; None where it is the same
        weighting: an option of WEIGHTINGS; None for uniform weights
        leftover: an option of LEFTOVER
        uses_teacher: whether the divergence has any weight
        remembers: names of what its options remember from batch to batch
    """

    prefix_policy: Optional[Any]
    divergence: Callable
    student_divergence: Optional[Callable]
    weighting: Optional[Callable]
    leftover: Callable
    uses_teacher: bool
    remembers: Tuple[str, ...] = ()

    def check_k(self, k, where):
        """Refuse a ``--kd-head`` that is not below the number of known symbols.

        Args:
            k: how many symbols are known of a distribution; None for all
            where: the flag that says so, in words
        Raises:
            ValueError: names the flags and the k that it needs
        """
        for divergence in filter(None, (self.divergence, self.student_divergence)):
            head = divergence.keywords.get("head")
            if head is not None and k is not None and k <= head:
                raise ValueError(
                    f"{where} {k}: the divergence looks at the tail behind the teacher's "
                    f"{head} most probable symbols (--kd-head), and needs {head + 1} of them "
                    "or more."
                )


def resolve_method(cfg, preset):
    """The `Method` of a configuration.

    Args:
        cfg: `DistillConfig`
        preset: a method's own defaults of axis parameters, by name
    Raises:
        ValueError: a flag is out of its range, is not used, or cannot go with another
    """
    check_config(cfg)
    names = {axis: str(cfg[axis.name]) for axis in AXES}
    settings = {name: cfg.get(name) for axis in AXES for name in axis.parameters()}
    for name, value in preset.items():
        settings[name] = value if settings[name] is None else settings[name]
    policy = PREFIXES.resolve(names[PREFIXES], settings)
    on_student = cfg.kd_student_divergence and str(cfg.kd_student_divergence)
    method = Method(
        policy and policy(),
        DIVERGENCES.resolve(names[DIVERGENCES], settings),
        on_student and DIVERGENCES.resolve(on_student, settings),
        WEIGHTINGS.resolve(names[WEIGHTINGS], settings),
        LEFTOVER.resolve(str(cfg.kd_leftover or "tail"), settings),
        uses_teacher=policy is not None or (cfg.gold_weight < 1 and cfg.kd_alpha > 0),
    )
    in_use = list(names.items()) if method.uses_teacher else [(PREFIXES, names[PREFIXES])]
    if on_student:
        in_use.append((DIVERGENCES, on_student))
    refuse_unused(AXES, in_use, settings, given=cfg)
    remembered = [axis.options[name].remembers for axis, name in in_use]
    method.remembers = tuple(sorted(set().union(*remembered)))
    check_combination(cfg, method)
    method.check_k(cfg.kd_top_k, "--kd-top-k is")
    return method


def check_combination(cfg, method):
    """Raise a ValueError for flags that cannot go together.

    Args:
        cfg: `DistillConfig`
        method: `Method`
    """
    if method.uses_teacher and cfg.teacher_path is None and cfg.kd_cache is None:
        raise ValueError(
            "--teacher-path is None, expected a checkpoint to compare the student with "
            "(or --kd-cache, or --kd-alpha 0 and --kd-prefixes data)"
        )
    if cfg.kd_cache is not None and str(cfg.kd_targets) == Sampled.name:
        raise ValueError(
            f"--kd-cache is {cfg.kd_cache!r} with --kd-targets sampled: a cache has the "
            "teacher's distributions at one target per sentence, and these targets are others "
            "in every epoch. Use --teacher-path without --kd-cache, or --kd-targets best."
        )
    of_comparison = ("kd_divergence", "kd_weighting", "kd_temperature", "kd_top_k", "kd_cache")
    for name in (*of_comparison, "kd_passes"):
        if not method.uses_teacher and str(cfg[name]) != str(getattr(DistillConfig, name)):
            raise ValueError(
                f"{flag(name)} is {cfg[name]}, but with --kd-alpha {cfg.kd_alpha} and "
                f"--gold-weight {cfg.gold_weight} nothing is compared with the teacher. Leave "
                "it out, or set --kd-alpha above 0."
            )
    if cfg.kd_passes > 1:
        check_passes(cfg, method)
    if method.prefix_policy is not None:
        check_policy(cfg, method.prefix_policy)
    elif cfg.kd_student_divergence is not None:
        raise ValueError(
            f"--kd-student-divergence is {cfg.kd_student_divergence}, but there are no rows "
            "for it: expected --kd-prefixes student or interleaved beside it"
        )


def check_passes(cfg, method):
    """Raise a ValueError for flags that cannot go with several passes of the decoder."""
    if cfg.kd_cache is not None:
        raise ValueError(
            f"--kd-passes is {cfg.kd_passes} with --kd-cache {cfg.kd_cache!r}: a cache has the "
            "teacher's distributions after the data's prefixes alone. Use --teacher-path "
            "without --kd-cache, or --kd-passes 1."
        )
    if method.prefix_policy is not None:
        raise ValueError(
            f"--kd-passes is {cfg.kd_passes} with --kd-prefixes {cfg.kd_prefixes}: the passes "
            "make their own prefixes from the data's. Expected --kd-prefixes data, or "
            "--kd-passes 1."
        )
    if method.remembers:
        raise ValueError(
            f"--kd-passes is {cfg.kd_passes}, but this method remembers "
            f"{', '.join(method.remembers)} of every batch, which is that of its first pass. "
            "Expected --kd-passes 1, or options that remember nothing."
        )


def check_policy(cfg, policy):
    """Raise a ValueError for flags that cannot go with a prefix policy."""
    if cfg.kd_cache is not None:
        raise ValueError(
            f"--kd-cache is {cfg.kd_cache!r}, but it has the teacher's distributions after the "
            "data's prefixes, not the student's: expected --kd-prefixes data, or "
            "--teacher-path without --kd-cache"
        )
    if cfg.gold_weight == 1:
        raise ValueError(
            "--gold-weight is 1, so that the student's own prefixes would count nothing: "
            "expected below 1, or --kd-prefixes data"
        )
    if policy.needs_progress and not cfg.max_update > 0:
        raise ValueError(
            f"--max-update is {cfg.max_update}, but --kd-schedule needs to know how long "
            "the training is: set --max-update, or take --kd-schedule constant"
        )
