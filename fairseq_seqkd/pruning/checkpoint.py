"""Prunes a checkpoint on disk, of any fairseq model, and makes smaller what can be made so."""

from argparse import Namespace
from collections import defaultdict

from fairseq_seqkd.models.checkpoints import read_checkpoint, writable, write_checkpoint
from fairseq_seqkd.models.parameters import aliases_of, parameters_of
from fairseq_seqkd.pruning.schemes import Scheme
from fairseq_seqkd.pruning.weights import Weights


class Checkpoint:
    """A checkpoint to be pruned, as it is in its file.

    Args:
        path: the file
        skip: see `Weights`
    Raises:
        FileNotFoundError, ValueError: as for
            `read_checkpoint`
    """

    def __init__(self, path, skip=None):
        self.path, self.skip = path, skip
        self.state = read_checkpoint(path)
        # Momentum would move what is zero now, and has the size that the model had.
        self.state["last_optimizer_state"] = None
        self._look()

    def _look(self):
        self.names = aliases_of(self.state["model"])
        self.parameters = parameters_of(self.state["model"])
        self.weights = Weights(self.parameters, self.skip, heads_in(self._model_config))

    @property
    def _model_config(self):
        cfg = self.state.get("cfg")
        return self.state.get("args") if cfg is None else _items(cfg).get("model")

    def _copies(self):
        """The model, and the moving averages of it that a training keeps."""
        extra = self.state.get("extra_state") or {}
        copies = self.state["model"], extra.get("ema"), extra.get("ema_fp32_params")
        return [tensors for tensors in copies if tensors]

    def prune(self, scheme, sparsity, again=False):
        """Set weights to zero, once and for all.

        Args:
            scheme: a name of the axis SCHEMES
            sparsity: the share of weights, heads or units that is zero then
            again: whether a model may have been pruned before
        Returns:
            how much is pruned now, in words
        Raises:
            ValueError: it was and may not, or is sparser already than asked for
        """
        scheme = Scheme(scheme, self.weights)
        if not again:
            scheme.refuse_pruned(self.path)
        scheme.refuse_sparsity(sparsity, "--sparsity")
        for first, mask in scheme.masks(sparsity).items():
            self._zero(first, mask)
        return scheme.describe()

    def _zero(self, first, mask):
        for tensors in self._copies():
            for name in self.names[first]:
                if name in tensors:
                    tensors[name].masked_fill_(mask, 0)

    def compact(self):
        """Take feed-forward units that are zero out: the model becomes smaller and faster.

        The encoder's layers have one width, and the decoder's: that of the layer with the most
        units that are left.

        Returns:
            {"encoder": (width before, width after), "decoder": ...}, for those that have one
        Raises:
            ValueError: nothing can be taken out, or the architecture has no such width
        """
        sides = defaultdict(list)
        for units in Weights(self.parameters).ffn:  # all of them, skipped or not
            sides[units.name.split(".")[0]].append(units)
        widths = {}
        for side, layers in sides.items():
            before = max(units.number for units in layers)
            after = max(int((~units.dead()).sum()) for units in layers)
            widths[side] = before, max(after, 1)
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
        for side, (_, width) in widths.items():
            self._set_width(side, width)
            for units in sides[side]:
                self._narrow(units, width)
        self._look()
        return widths

    def _set_width(self, side, width):
        places = _places(self._model_config, side, "ffn_embed_dim")
        if not places:
            raise ValueError(
                f"--compact: the architecture of {self.path!r} has no {side}_ffn_embed_dim "
                "that could be made smaller. Expected one of fairseq's Transformers."
            )
        for config, key in places:
            with writable(config):
                _items(config)[key] = width

    def _narrow(self, units, width):
        # Those that are left, in their order, and zero ones up to the width.
        kept = units.dead().int().sort(stable=True).indices[:width].sort().values
        for first, (_, dimension) in units.parts.items():
            for tensors in self._copies():
                for name in self.names[first]:
                    if name in tensors:
                        tensors[name] = tensors[name].index_select(dimension, kept)

    def save(self, path):
        """Write it; the file is there whole or not at all."""
        write_checkpoint(self.state, path)


def heads_in(config):
    """What tells the number of an attention's heads by its name, see `Weights`.

    Args:
        config: of the model, of any kind, or None
    """

    def number(module):
        places = _places(config, module.split(".")[0], "attention_heads")
        return _items(places[0][0])[places[0][1]] if places else None

    return number


def _places(config, side, name):
    """Where a model's configuration has a setting of its encoder or decoder.

    Returns:
        a list of containers and the key in each: ``NAME`` in ``encoder``, which is what counts
        if it is there, and ``encoder_NAME``
    """
    items = _items(config)
    nested = items.get(side)
    found = [(nested, name)] if nested is not None and name in _items(nested) else []
    return [*found, *([(config, f"{side}_{name}")] if f"{side}_{name}" in items else [])]


def _items(config):
    """A configuration's settings, by their names."""
    if config is None:
        return {}
    return vars(config) if isinstance(config, Namespace) else config
