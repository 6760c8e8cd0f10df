"""Prunes a checkpoint file of any fairseq model, and removes zero feed-forward units."""

from argparse import Namespace
from collections import defaultdict

from fairseq_seqkd.models.checkpoints import read_checkpoint, writable, write_checkpoint
from fairseq_seqkd.models.parameters import aliases_of, parameters_of
from fairseq_seqkd.models.paths import remove_paths
from fairseq_seqkd.pruning.schemes import Scheme
from fairseq_seqkd.pruning.weights import Weights


class Checkpoint:
    """A checkpoint to prune, as it is in its file but for the optimizer's state and for paths.

    Args:
        path: the file
        skip: see `Weights`
    Raises:
        FileNotFoundError, ValueError: as for `read_checkpoint`
    """

    def __init__(self, path, skip=None):
        self.path, self.skip = path, skip
        self.state = read_checkpoint(path)
        # Momentum would move pruned weights, and has the shape of the model before compact().
        self.state["last_optimizer_state"] = None
        self._find_weights()

    def _find_weights(self):
        self.names = aliases_of(self.state["model"])
        self.parameters = parameters_of(self.state["model"])
        heads_of = heads_from_config(self._model_config)
        self.weights = Weights(self.parameters, self.skip, heads_of)

    @property
    def _model_config(self):
        cfg = self.state.get("cfg")
        return self.state.get("args") if cfg is None else _items(cfg).get("model")

    def _state_dicts(self):
        """The model's weights, and the moving averages of them that the training kept."""
        extra = self.state.get("extra_state") or {}
        dicts = self.state["model"], extra.get("ema"), extra.get("ema_fp32_params")
        return [tensors for tensors in dicts if tensors]

    def prune(self, scheme, sparsity, again=False):
        """Set weights to zero.

        Args:
            scheme: option of the axis SCHEMES
            sparsity: the fraction of weights, heads or feed-forward units to be zero
            again: accept a model that was pruned before
        Returns:
            the resulting sparsity, in words
        Raises:
            ValueError: the model was pruned before without ``again``, or is sparser already
        """
        scheme = Scheme(scheme, self.weights)
        if not again:
            scheme.refuse_pruned(self.path)
        scheme.refuse_sparsity(sparsity, "--sparsity")
        for first, mask in scheme.masks(sparsity).items():
            for tensors, name in self._occurrences(first):
                tensors[name].masked_fill_(mask, 0)
        return scheme.describe()

    def _occurrences(self, first):
        """[(state dictionary, name)] of a parameter, under all of its names."""
        return [
            (tensors, name)
            for tensors in self._state_dicts()
            for name in self.names[first]
            if name in tensors
        ]

    def compact(self):
        """Remove feed-forward units that are zero: the model becomes smaller and faster.

        All layers of the encoder get one width, and all of the decoder: that of the layer with
        the most units left.

        Returns:
            {"encoder": (width before, width after), "decoder": ...}, for the sides that exist
        Raises:
            ValueError: nothing can be removed, or the architecture has no such width
        """
        sides = defaultdict(list)
        for units in Weights(self.parameters).ffn:  # all of them, skipped or not
            sides[units.name.split(".")[0]].append(units)
        widths = {}
        for side, layers in sides.items():
            before = max(units.number for units in layers)
            after = max(int((~units.zero_mask()).sum()) for units in layers)
            widths[side] = before, max(after, 1)
        self._check_widths(widths)
        for side, (_, width) in widths.items():
            self._set_width(side, width)
            for units in sides[side]:
                self._narrow(units, width)
        self._find_weights()
        return widths

    def _check_widths(self, widths):
        if not widths:
            raise ValueError(
                f"--compact: the model {self.path!r} has no feed-forward layers (fc1, fc2) "
                "that could be made smaller. Expected one of fairseq's Transformers."
            )
        if all(before == after for before, after in widths.values()):
            raise ValueError(
                f"--compact: no feed-forward units of {self.path!r} are zero in every layer "
                f"(widths {dict(widths)}). Prune it with --scheme ffn; heads and single "
                "weights cannot be taken out, since fairseq's layers are whole matrices."
            )

    def _set_width(self, side, width):
        settings = _find_setting(self._model_config, side, "ffn_embed_dim")
        if not settings:
            raise ValueError(
                f"--compact: the architecture of {self.path!r} has no {side}_ffn_embed_dim "
                "that could be made smaller. Expected one of fairseq's Transformers."
            )
        for config, key in settings:
            with writable(config):
                _items(config)[key] = width

    def _narrow(self, units, width):
        # The non-zero units in their order, then zero ones up to the width.
        kept = units.zero_mask().int().sort(stable=True).indices[:width].sort().values
        for first, (_, dimension) in units.parts.items():
            for tensors, name in self._occurrences(first):
                tensors[name] = tensors[name].index_select(dimension, kept)

    def save(self, path):
        """Write the checkpoint, without paths of the training; it is complete or not there."""
        for config in filter(None, (self.state.get("cfg"), self.state.get("args"))):
            remove_paths(config)
        write_checkpoint(self.state, path)


def heads_from_config(config):
    """A function from an attention module's name to its number of heads; see `Weights`.

    Args:
        config: the model's configuration, of any type, or None
    """

    def heads_of(module):
        settings = _find_setting(config, module.split(".")[0], "attention_heads")
        return _items(settings[0][0])[settings[0][1]] if settings else None

    return heads_of


def _find_setting(config, side, name):
    """Find a setting of the encoder or decoder in a model's configuration.

    Returns:
        [(container, key)]: ``name`` in the section ``side``, which has precedence, and
        ``side_name`` in ``config`` itself; as far as they exist
    """
    items = _items(config)
    section = items.get(side)
    found = [(section, name)] if section is not None and name in _items(section) else []
    return [*found, *([(config, f"{side}_{name}")] if f"{side}_{name}" in items else [])]


def _items(config):
    """A configuration as a dictionary that can be written to."""
    if config is None:
        return {}
    return vars(config) if isinstance(config, Namespace) else config
