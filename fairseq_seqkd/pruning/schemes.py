"""Pruning schemes: which weights of a model are pruned at a given sparsity.

A scheme is a function of the model's `Weights` and the sparsity. It returns {name: mask}, True
where a weight is pruned: those of the smallest magnitude. Zeros go first, so pruned weights
stay pruned. Ties are decided by the order of the weights.

Source of the first three schemes: See et al. 2016, Compression of Neural Machine Translation
Models via Pruning (arXiv 1606.09274), section 3.2. Kim & Rush 2016 use class_blind.
"""

import torch

from fairseq_seqkd.models.parameters import fraction_of_zeros
from fairseq_seqkd.registry import Axis

SCHEMES = Axis("prune_scheme")
SCHEME_HELP = (
    "which weights are pruned: the smallest of the model (class_blind), of each class "
    "(class_uniform), relative to the standard deviation of their class (class_distribution); "
    "or whole attention heads (heads), whole feed-forward units (ffn)"
)

# Schemes that prune whole units: attributes of `Weights`.
_OF_UNITS = ("heads", "ffn")
# A dense model may have this fraction of zeros, such as the padding symbol's embedding.
_ZEROS_OF_A_DENSE_MODEL = 0.005


class Scheme:
    """A pruning scheme applied to one model.

    Args:
        name: option of the axis SCHEMES
        weights: the model's `Weights`
    Raises:
        ValueError: the scheme prunes heads or feed-forward units, and the model has none
    """

    def __init__(self, name, weights):
        self.name = name
        self.weights = weights
        self.units = getattr(weights, name) if name in _OF_UNITS else []
        self._mask_function = SCHEMES.resolve(name, {})
        if name in _OF_UNITS and not self.units:
            raise ValueError(
                f"the pruning scheme is {name}, but the model has none, or none that is not "
                "skipped. Expected a model of fairseq's Transformer layers, or one of "
                f"{', '.join(scheme for scheme in SCHEMES.options if scheme not in _OF_UNITS)}."
            )

    def masks(self, sparsity):
        """{name: mask}, True where a parameter is pruned at this sparsity.

        Raises:
            ValueError: some weights are infinite or NaN, so magnitudes cannot be compared
        """
        for name, tensor in self.weights.matrices.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(
                    f"{name} has weights that are infinite or no numbers (NaN), which cannot "
                    "be compared: training has diverged. Take an earlier checkpoint."
                )
        return self._mask_function(self.weights, sparsity)

    def zero_masks(self):
        """{name: mask}, True where a parameter is zero and has to stay zero."""
        return self.weights.zero_masks(self.units)

    def sparsity(self):
        """The fraction of zero units; of zero weights if the scheme prunes single weights."""
        if not self.units:
            return fraction_of_zeros(self.weights.matrices)
        zero = sum(int(group.zero_mask().sum()) for group in self.units)
        return zero / sum(group.number for group in self.units)

    def describe(self):
        """The current sparsity in words."""
        if not self.units:
            return f"{100 * self.sparsity():.2f} % of the weights are zero"
        numbers = " or ".join(map(str, sorted({group.number for group in self.units})))
        return (
            f"{100 * self.sparsity():.2f} % of the {self.name} are zero (each of "
            f"{len(self.units)} modules has {numbers})"
        )

    def refuse_pruned(self, path):
        """Refuse a model that was pruned before, by whatever scheme.

        Args:
            path: the model's file, for the error message
        Raises:
            ValueError: it has more zeros than a dense model
        """
        sparsity = max(self.sparsity(), fraction_of_zeros(self.weights.matrices))
        if sparsity > _ZEROS_OF_A_DENSE_MODEL:
            raise ValueError(
                f"{path!r} was pruned before: {sparsity:.3f} of it is zero. With --again it is "
                "pruned further."
            )

    def refuse_sparsity(self, sparsity, flag):
        """Refuse a sparsity below the model's own, or too low to prune a single unit.

        Args:
            sparsity: the requested sparsity
            flag: the flag that sets it, for the error message
        Raises:
            ValueError: says which sparsity is expected
        """
        most = max((group.number for group in self.units), default=0)
        if most and sparsity > 0 and round(sparsity * most) < 1:
            raise ValueError(
                f"{flag} is {sparsity}, which is none of {most} {self.name}: expected more "
                f"than {0.5 / most:.3f}"
            )
        current = self.sparsity()
        if current > sparsity + _ZEROS_OF_A_DENSE_MODEL:
            raise ValueError(
                f"{flag} is {sparsity}, but {current:.3f} of the model is zero already: "
                f"expected a sparsity of at least {current:.3f}, or a model that is less sparse"
            )


@SCHEMES.option()
def class_blind(weights, sparsity):
    """Prune the smallest of all weights, whatever their class."""
    return smallest_masks(magnitudes(weights.matrices), sparsity)


@SCHEMES.option()
def class_uniform(weights, sparsity):
    """Prune the same fraction of every class: its smallest weights."""
    masks = {}
    for members in weights.classes.values():
        masks.update(smallest_masks(magnitudes(members), sparsity))
    return masks


@SCHEMES.option()
def class_distribution(weights, sparsity):
    """Prune the smallest weights relative to the standard deviation of their class.

    A weight of class c is pruned if |w| < lambda * sigma_c, with one lambda for all classes.
    """
    scores = {}
    for members in weights.classes.values():
        values = torch.cat([tensor.detach().flatten() for tensor in members.values()])
        sigma = values.double().std(unbiased=False)
        for name, magnitude in magnitudes(members).items():
            scores[name] = magnitude / sigma if sigma > 0 else magnitude
    return smallest_masks(scores, sparsity)


@SCHEMES.option()
def heads(weights, sparsity):
    """Prune the same fraction of the heads of every attention module, whole heads."""
    return smallest_unit_masks(weights.heads, sparsity)


@SCHEMES.option()
def ffn(weights, sparsity):
    """Prune the same fraction of the feed-forward units of every layer, whole units.

    Every layer loses equally many, because an architecture has one width for all layers.
    """
    return smallest_unit_masks(weights.ffn, sparsity)


def magnitudes(tensors):
    """{name: |w|} in float32."""
    return {name: tensor.detach().abs().float() for name, tensor in tensors.items()}


def smallest_masks(scores, sparsity):
    """Mask the smallest scores, exactly the fraction ``sparsity`` of all of them together.

    Args:
        scores: {name: tensor}
        sparsity: from 0 to 1
    Returns:
        {name: mask} of the same shapes
    """
    flat = torch.cat([score.flatten() for score in scores.values()])
    number = round(sparsity * len(flat))
    mask = torch.zeros_like(flat, dtype=torch.bool)
    if number > 0:
        threshold = flat.kthvalue(number).values
        torch.lt(flat, threshold, out=mask)
        ties = (flat == threshold).nonzero().squeeze(-1)
        mask[ties[: number - int(mask.sum())]] = True
    parts = mask.split([score.numel() for score in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts)}


def smallest_unit_masks(units, sparsity):
    """Mask the smallest units of every module; one of them stays, whatever the sparsity.

    Args:
        units: list of `UnitGroup`
    """
    masks = {}
    for group in units:
        number = min(round(sparsity * group.number), group.number - 1)
        order = group.magnitudes().sort(stable=True).indices
        units_mask = torch.zeros_like(order, dtype=torch.bool)
        units_mask[order[:number]] = True
        masks.update(group.parameter_masks(units_mask))
    return masks
