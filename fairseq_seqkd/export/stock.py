"""A student as a checkpoint that stock fairseq loads, without this package and with any torch.

What training keeps beside the model (the optimizer's state, meters) stays behind; the
configuration becomes plain containers; this package's task and criterion become those that they
extend, as their attribute ``stock_name`` says.
"""

from dataclasses import dataclass, fields

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY

from fairseq_seqkd.models.checkpoints import (
    config_of,
    load_state,
    plain_containers,
    write_checkpoint,
)
from fairseq_seqkd.models.parameters import aliases_of, parameters_of
from fairseq_seqkd.pruning.checkpoint import heads_in
from fairseq_seqkd.pruning.weights import Weights

_REGISTRIES = {
    "task": (TASK_REGISTRY, TASK_DATACLASS_REGISTRY),
    "criterion": (CRITERION_REGISTRY, CRITERION_DATACLASS_REGISTRY),
}


@dataclass
class Student:
    """What is shipped of a checkpoint.

    Attributes:
        model: {name: tensor}; a shared one is one tensor under all of its names
        config: fairseq's configuration, as plain containers with stock names
        updates: how many the student was trained for
    """

    model: dict
    config: dict
    updates: int = 0

    @classmethod
    def of_checkpoint(cls, path, average=False):
        """The student in a checkpoint.

        Args:
            path: its file
            average: take the moving average of the weights in the place of the last ones
        Raises:
            FileNotFoundError, ValueError: as for
                `load_state`, or there is no moving average
        """
        state = load_state(path)
        config = config_of(state, path)
        model = averaged(state, config.model, path) if average else state["model"]
        updates = state["optimizer_history"][-1].get("num_updates", 0)
        return cls(model, stock_config(config), updates)

    def save(self, path):
        """Write it as a checkpoint; it is there whole or not at all."""
        history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}}
        state = {
            "args": None,
            "cfg": self.config,
            "model": self.model,
            "criterion": None,
            "optimizer_history": [{**history, "num_updates": self.updates}],
            "task_state": {},
            "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
            "last_optimizer_state": None,
        }
        write_checkpoint(state, path)


def averaged(state, config, path):
    """The moving average of a checkpoint's weights, with what was pruned at zero.

    By itself the average remembers for long what a weight was before it was pruned.

    Args:
        state: of the checkpoint
        config: of its model
        path: of its file
    Raises:
        ValueError: there is none
    """
    average = (state.get("extra_state") or {}).get("ema")
    if average is None:
        raise ValueError(
            f"--ema: {path!r} has no moving average of its weights. Expected a checkpoint of a "
            "training with --store-ema."
        )
    names = aliases_of(state["model"])
    weights = Weights(parameters_of(state["model"]), heads_of=heads_in(config))
    for first, mask in weights.dead(weights.ffn + weights.heads).items():
        for name in names[first]:
            average[name].masked_fill_(mask, 0)
    return average


def stock_config(config):
    """fairseq's configuration as plain containers, with stock fairseq's names alone.

    Args:
        config: an OmegaConf container, whose ``model`` may be a Namespace
    """
    plain = plain_containers(config)
    model, common = plain["model"], plain["common"]
    for settings in (model, common):
        if "user_dir" in settings:
            settings["user_dir"] = None
    for key, registries in _REGISTRIES.items():
        plain[key], ours = _stock(plain[key], *registries)
        # From the command line a model's configuration has everything else in it as well.
        for name in ours & set(model):
            del model[name]
        if key in model:
            model[key] = plain[key]["_name"]
    return plain


def _stock(settings, registry, dataclasses):
    """The settings of what a task or criterion extends, and the names of the others."""
    known = registry.get((settings or {}).get("_name"))
    name = getattr(known, "stock_name", None)
    if name is None:
        return settings, set()
    stock = {field.name for field in fields(dataclasses[name])}
    kept = {key: value for key, value in settings.items() if key in stock}
    return {**kept, "_name": name}, set(settings) - stock - {"_name"}
