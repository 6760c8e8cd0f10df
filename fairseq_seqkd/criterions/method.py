"""The method that a configuration describes: its axes resolved, and what cannot go together."""

from dataclasses import dataclass
from typing import Any, Callable, Optional, Tuple

from fairseq_seqkd.criterions.config import AXES, DistillConfig, check_config
from fairseq_seqkd.losses.divergences import DIVERGENCES
from fairseq_seqkd.losses.support import LEFTOVER
from fairseq_seqkd.losses.text_weighting import NLL_WEIGHTINGS, SENTENCE_WEIGHTINGS
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
        nll_weighting: an option of NLL_WEIGHTINGS; None for 1 at data targets
        sentence_weighting: an option of SENTENCE_WEIGHTINGS; None for uniform weights
        leftover: an option of LEFTOVER
        uses_teacher: whether the divergence has any weight, or the teacher makes prefixes
        remembers: names of what its options remember from batch to batch
        weighs_text: whether there is an NLL weighting or a sentence weighting
    """

    prefix_policy: Optional[Any]
    divergence: Callable
    student_divergence: Optional[Callable]
    weighting: Optional[Callable]
    nll_weighting: Optional[Callable]
    sentence_weighting: Optional[Callable]
    leftover: Callable
    uses_teacher: bool
    remembers: Tuple[str, ...] = ()
    weighs_text: bool = False

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
    policy = policy and policy()
    on_student = cfg.kd_student_divergence and str(cfg.kd_student_divergence)
    method = Method(
        policy,
        DIVERGENCES.resolve(names[DIVERGENCES], settings),
        on_student and DIVERGENCES.resolve(on_student, settings),
        WEIGHTINGS.resolve(names[WEIGHTINGS], settings),
        NLL_WEIGHTINGS.resolve(names[NLL_WEIGHTINGS], settings),
        SENTENCE_WEIGHTINGS.resolve(names[SENTENCE_WEIGHTINGS], settings),
        LEFTOVER.resolve(str(cfg.kd_leftover or "tail"), settings),
        uses_teacher=cfg.gold_weight < 1 and cfg.kd_alpha > 0,
    )
    method.weighs_text = bool(method.nll_weighting or method.sentence_weighting)
    if policy is not None:
        compares = method.nll_weighting is None or policy.token_rule.uses_teacher
        method.uses_teacher = method.uses_teacher or compares
    of_teacher = () if method.uses_teacher else (DIVERGENCES, WEIGHTINGS)
    in_use = [(axis, name) for axis, name in names.items() if axis not in of_teacher]
    if on_student:
        in_use.append((DIVERGENCES, on_student))
    refuse_unused(AXES, in_use, settings, given=cfg)
    remembered = [axis.options[name].remembers for axis, name in in_use]
    method.remembers = tuple(sorted(set().union(*remembered)))
    check_combination(cfg, method)
    method.check_k(cfg.kd_top_k, "--kd-top-k is")
    return method


def check_task(cfg, task):
    """Raise a ValueError for targets that the task does not have."""
    if str(cfg.kd_targets) != "gold" and not hasattr(task, "use_targets"):
        raise ValueError(
            f"--kd-targets {cfg.kd_targets} needs pseudo-targets, and the task "
            f"{type(task).__name__} has none: use --task translation_seqkd with "
            "--pseudo-targets DIR, or train on a store's data-bin with --kd-targets gold"
        )


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
    for name in (*of_comparison, "kd_student_divergence", "kd_passes"):
        if not method.uses_teacher and str(cfg[name]) != str(getattr(DistillConfig, name)):
            raise ValueError(
                f"{flag(name)} is {cfg[name]}, but with --kd-alpha {cfg.kd_alpha} and "
                f"--gold-weight {cfg.gold_weight} nothing is compared with the teacher. Leave "
                "it out, or set --kd-alpha above 0."
            )
    check_text_weights(cfg, method)
    if cfg.kd_passes > 1:
        check_passes(cfg, method)
    if method.prefix_policy is not None:
        check_policy(cfg, method.prefix_policy)
    elif cfg.kd_student_divergence is not None:
        raise ValueError(
            f"--kd-student-divergence is {cfg.kd_student_divergence}, but there are no rows "
            "for it: expected --kd-prefixes student or interleaved beside it"
        )


def check_text_weights(cfg, method):
    """Raise a ValueError for flags that cannot go with weights of texts."""
    if method.sentence_weighting is not None and method.prefix_policy is not None:
        raise ValueError(
            f"--sentence-weighting is {cfg.sentence_weighting} with --kd-prefixes "
            f"{cfg.kd_prefixes}: it looks at how well the student knows a sentence's target, "
            "and such targets are the student's. Expected --kd-prefixes data, or "
            "--sentence-weighting uniform."
        )
    if method.nll_weighting is None:
        return
    if method.prefix_policy is None and str(cfg.kd_targets) == "gold":
        raise ValueError(
            f"--nll-weighting is {cfg.nll_weighting}, but it compares hypotheses with gold, "
            "and the targets are gold: expected --kd-prefixes student, or --kd-targets best "
            "with --task translation_seqkd"
        )
    if cfg.gold_weight == 1 or cfg.kd_alpha == 1:
        raise ValueError(
            f"--nll-weighting is {cfg.nll_weighting}, but with --kd-alpha {cfg.kd_alpha} and "
            f"--gold-weight {cfg.gold_weight} the target's NLL counts nothing: expected both "
            "below 1"
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
        needs, does_without = policy.progress_flags
        raise ValueError(
            f"--max-update is {cfg.max_update}, but {needs} needs to know how long the "
            f"training is: set --max-update, or take {does_without}"
        )
    if policy.needs_validation and cfg.disable_validation:
        raise ValueError(
            f"--disable-validation with --kd-prefixes {cfg.kd_prefixes}: the student generates "
            "nothing until a validation has become worse. Leave it out, or begin with a "
            "--kd-replay-fraction above 0."
        )
