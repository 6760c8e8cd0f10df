"""Exports a student as a checkpoint that stock fairseq loads, without this package.

Only the model is kept: no optimizer state, no meters. The configuration becomes plain
containers, which every version of torch loads, and names no path and no host. This package's
task and criterion are replaced by the stock ones that they extend, named by their attribute
``stock_name``.
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
from fairseq_seqkd.models.paths import without_paths
from fairseq_seqkd.pruning.checkpoint import heads_from_config
from fairseq_seqkd.pruning.weights import Weights

_REGISTRIES = {
    "task": (TASK_REGISTRY, TASK_DATACLASS_REGISTRY),
    "criterion": (CRITERION_REGISTRY, CRITERION_DATACLASS_REGISTRY),
}


@dataclass
class Student:
    """The part of a checkpoint that is exported.

    Attributes:
        model: {name: tensor}; a shared tensor is one object under all of its names
        config: fairseq's configuration, as plain containers with stock names
        updates: number of updates that the student was trained for
    """

    model: dict
    config: dict
    updates: int = 0

    @classmethod
    def from_checkpoint(cls, path, average=False):
        """Read the student in a checkpoint.

        Args:
            path: of the checkpoint
            average: take the moving average of the weights instead of the last ones
        Raises:
            FileNotFoundError, ValueError: as for `load_state`, or there is no moving average
        """
        state = load_state(path)
        config = config_of(state, path)
        model = moving_average(state, config.model, path) if average else state["model"]
        updates = state["optimizer_history"][-1].get("num_updates", 0)
        return cls(model, stock_config(config), updates)

    @property
    def shipped_config(self):
        """The configuration without paths and hosts of the training."""
        return without_paths(self.config)

    def save(self, path):
        """Write the student as a checkpoint, atomically."""
        history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}}
        state = {
            "args": None,
            "cfg": self.shipped_config,
            "model": self.model,
            "criterion": None,
            "optimizer_history": [{**history, "num_updates": self.updates}],
            "task_state": {},
            "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
            "last_optimizer_state": None,
        }
        write_checkpoint(state, path)


def moving_average(state, config, path):
    """The moving average of a checkpoint's weights, set to zero where weights were pruned.

    The average itself is not zero there: it decays slowly from the values before pruning.

    Args:
        state: the checkpoint
        config: the model's configuration
        path: of the checkpoint, for the error
    Returns:
        {name: tensor}
    Raises:
        ValueError: the checkpoint has no moving average
    """
    average = (state.get("extra_state") or {}).get("ema")
    if average is None:
        raise ValueError(
            f"--ema: {path!r} has no moving average of its weights. Expected a checkpoint of a "
            "training with --store-ema."
        )
    aliases = aliases_of(state["model"])
    weights = Weights(parameters_of(state["model"]), heads_of=heads_from_config(config))
    for first, zero_mask in weights.zero_masks(weights.ffn + weights.heads).items():
        for name in aliases[first]:
            average[name].masked_fill_(zero_mask, 0)
    return average


def stock_config(config):
    """fairseq's configuration as plain containers with stock names and settings only.

    Args:
        config: an OmegaConf container, whose ``model`` may be a Namespace
    Returns:
        a nested dictionary
    """
    plain = plain_containers(config)
    model = plain["model"]
    for key, registries in _REGISTRIES.items():
        plain[key], removed = _stock_settings(plain[key], *registries)
        # Trained from the command line, a model's configuration holds all other flags as well.
        for name in removed & set(model):
            del model[name]
        if key in model:
            model[key] = plain[key]["_name"]
    return plain


def _stock_settings(settings, registry, dataclasses):
    """The settings of the stock task or criterion, and the names of those removed."""
    registered = registry.get((settings or {}).get("_name"))
    stock_name = getattr(registered, "stock_name", None)
    if stock_name is None:
        return settings, set()
    stock_fields = {field.name for field in fields(dataclasses[stock_name])}
    kept = {key: value for key, value in settings.items() if key in stock_fields}
    return {**kept, "_name": stock_name}, set(settings) - stock_fields - {"_name"}
