"""Pruning during training, for any fairseq task: a mixin, and the flags that it needs.

Example:
    @dataclass
    class MyConfig(TranslationConfig, PruningConfig):
        ...

    @register_task("my_task", dataclass=MyConfig)
    class MyTask(PruningMixin, TranslationTask):
        ...
"""

import logging
from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II

from fairseq_seqkd.axis_config import choice_type, config_with_parameters
from fairseq_seqkd.pruning.pruner import Pruner
from fairseq_seqkd.pruning.schedules import SCHEDULES
from fairseq_seqkd.pruning.schemes import SCHEME_HELP, SCHEMES
from fairseq_seqkd.registry import flag, refuse_unused

logger = logging.getLogger(__name__)

ScheduleParameters = config_with_parameters(
    "ScheduleParameters",
    "The parameters of all pruning schedules.",
    [SCHEDULES],
    bases=(FairseqDataclass,),
)


@dataclass
class PruningConfig(ScheduleParameters):
    """The pruning flags of a task, and the fairseq settings that they are checked against."""

    prune_sparsity: Optional[float] = field(
        default=None,
        metadata={
            "help": "prune until this fraction of the weights is zero, from 0 to below 1"
        },
    )
    prune_scheme: Optional[choice_type(SCHEMES)] = field(
        default=None,
        metadata={"help": f"{SCHEME_HELP} (default: class_blind)"},
    )
    prune_schedule: Optional[choice_type(SCHEDULES)] = field(
        default=None,
        metadata={
            "help": "when they are pruned: all at once (one_shot, the default) or gradually "
            "(cubic)"
        },
    )
    prune_skip: Optional[str] = field(
        default=None,
        metadata={
            "help": "regular expression: do not prune parameters whose names match anywhere; "
            "biases, layer norms and positional embeddings are never pruned"
        },
    )
    max_update: int = II("optimization.max_update")
    validate_after_updates: int = II("dataset.validate_after_updates")
    disable_validation: bool = II("dataset.disable_validation")
    use_bmuf: bool = II("optimization.use_bmuf")
    ddp_backend: str = II("distributed_training.ddp_backend")
    zero_sharding: str = II("distributed_training.zero_sharding")


class PruningMixin:
    """Adds pruning to a task whose configuration extends `PruningConfig`.

    Raises:
        ValueError: a flag is out of its range, or does not go together with pruning
    """

    def __init__(self, cfg, *args, **kwargs):
        super().__init__(cfg, *args, **kwargs)
        self.pruner = build_pruner(cfg)

    def begin_epoch(self, epoch, model):
        super().begin_epoch(epoch, model)
        if self.pruner is not None:
            self.pruner.begin(model)

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if self.pruner is not None:
            self.pruner.before_step(model, optimizer, update_num)
        result = super().train_step(
            sample, model, criterion, optimizer, update_num, ignore_grad
        )
        if self.pruner is not None:
            self.pruner.after_backward()
        return result

    def optimizer_step(self, optimizer, model, update_num):
        super().optimizer_step(optimizer, model, update_num)
        if self.pruner is not None:
            self.pruner.after_step(optimizer)

    def reduce_metrics(self, logging_outputs, criterion):
        super().reduce_metrics(logging_outputs, criterion)
        if self.pruner is not None:
            for name, value in self.pruner.log.items():
                metrics.log_scalar(name, value, weight=0, round=2)


def build_pruner(cfg):
    """Build the `Pruner` that the flags describe; None without --prune-sparsity.

    Args:
        cfg: a configuration with the keys of `PruningConfig`
    Raises:
        ValueError: as for `PruningMixin`
    """
    names = [key for key in PruningConfig.__dataclass_fields__ if key.startswith("prune_")]
    settings = {name: getattr(cfg, name, None) for name in names}
    sparsity = settings.pop("prune_sparsity")
    if sparsity is None:
        _refuse_without_sparsity(settings)
        return None
    check_sparsity(sparsity, "--prune-sparsity")
    name = str(settings["prune_schedule"] or "one_shot")
    schedule = SCHEDULES.resolve(name, settings)
    refuse_unused([SCHEDULES], [(SCHEDULES, name)], settings, given=settings)
    last_update = check_updates(schedule.keywords, cfg.max_update)
    check_training(cfg)
    _warn_about_best_checkpoint(cfg, last_update)
    scheme = str(settings["prune_scheme"] or "class_blind")
    teacher_path = getattr(cfg, "teacher_path", None)
    return Pruner(sparsity, scheme, schedule, settings["prune_skip"], teacher_path)


def _refuse_without_sparsity(settings):
    for name, value in settings.items():
        if value is not None:
            raise ValueError(
                f"{flag(name)} is {value}, but nothing is pruned: expected --prune-sparsity "
                "beside it"
            )


def check_sparsity(sparsity, flag_name):
    """Refuse a sparsity below 0, or one that leaves no weights."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"{flag_name} is {sparsity}, expected a number from 0 to below 1")


def check_updates(schedule, max_update):
    """Refuse a schedule that ends before it begins, or after training does.

    Args:
        schedule: the schedule's parameters, {name: value}
        max_update: 0 if the length of training is not known
    Returns:
        the last update at which weights are pruned
    """
    start, end = schedule["start"], schedule.get("end")
    if end is not None and end <= start:
        raise ValueError(
            f"--prune-end-update is {end}, expected an update after --prune-start-update, "
            f"which is {start}"
        )
    name = "--prune-start-update" if end is None else "--prune-end-update"
    last = start if end is None else end
    if max_update and last >= max_update:
        raise ValueError(
            f"{name} is {last}, expected below --max-update, which is {max_update}: weights "
            "that are pruned at the end of training are not retrained"
        )
    return last


def check_training(cfg):
    """Refuse ways of training that keep weights elsewhere than in the model."""
    for name, refused in (
        ("ddp_backend", ("fully_sharded", "slowmo")),
        ("zero_sharding", ("os",)),
        ("use_bmuf", (True,)),
    ):
        if getattr(cfg, name, None) in refused:
            raise ValueError(
                f"{flag(name)} is {getattr(cfg, name)}, in which weights are kept elsewhere "
                "than in the model and would come back after pruning. Expected "
                "--ddp-backend pytorch_ddp or legacy_ddp alone, or no --prune-sparsity."
            )


def _warn_about_best_checkpoint(cfg, last_update):
    if last_update > cfg.validate_after_updates and not cfg.disable_validation:
        logger.warning(
            "checkpoint_best.pt may become a model that is not pruned yet, because every "
            "validation counts: expected --validate-after-updates %d, the last update at which "
            "weights are pruned",
            last_update,
        )
