"""Prunes a checkpoint on disk, of any fairseq model, and makes smaller what can be made so."""

from argparse import Namespace
from collections import defaultdict

import torch

from fairseq_seqkd.checkpoints import read_checkpoint, writable
from fairseq_seqkd.pruning.schemes import Scheme
from fairseq_seqkd.pruning.weights import Weights, aliases_of, parameters_of
from fairseq_seqkd.shards import atomic_file


class Checkpoint:
    """A checkpoint to be pruned, as it is in its file.

    Args:
        path: the file
        skip: see :class:`~fairseq_seqkd.pruning.weights.Weights`
    Raises:
        FileNotFoundError, ValueError: as for
            :func:`~fairseq_seqkd.checkpoints.read_checkpoint`
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
        self.weights = Weights(self.parameters, self.skip, self._heads_of)

    def _heads_of(self, module):
        side = module.split(".")[0]
        found = _find(self._model_config, side, "attention_heads")
        return None if found is None else _items(found[0])[found[1]]

    @property
    def _model_config(self):
        cfg = self.state.get("cfg")
        return self.state["args"] if cfg is None else cfg["model"]

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
        Raises:
            ValueError: it was and may not, or is sparser already than asked for
        """
        scheme = Scheme(scheme, self.weights)
        if not again:
            scheme.refuse_pruned(self.path)
        scheme.refuse_less(sparsity, "--sparsity")
        for first, mask in scheme.masks(sparsity).items():
            self._zero(first, mask)

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
        for units in self.weights.ffn:
            sides[units.name.split(".")[0]].append(units)
        widths = {}
        for side, layers in sides.items():
            before = max(units.number for units in layers)
            after = max(int((~units.dead()).sum()) for units in layers)
            widths[side] = before, max(after, 1)
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
        found = _find(self._model_config, side, "ffn_embed_dim")
        if found is None:
            raise ValueError(
                f"--compact: the architecture of {self.path!r} has no {side}_ffn_embed_dim "
                "that could be made smaller. Expected one of fairseq's Transformers."
            )
        config, key = found
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
        with atomic_file(path) as file:
            torch.save(self.state, file)


def _find(config, side, name):
    """Where a model's configuration has a setting of its encoder or decoder.

    Returns:
        the container and the key in it: ``encoder_NAME``, or ``NAME`` in ``encoder``; None if
        it has neither
    """
    items = _items(config)
    if f"{side}_{name}" in items:
        return config, f"{side}_{name}"
    nested = items.get(side)
    return (nested, name) if nested is not None and name in _items(nested) else None


def _items(config):
    """A configuration's settings, by their names."""
    return vars(config) if isinstance(config, Namespace) else config
