"""Which weights are pruned: those of the smallest magnitude, compared in one way or another.

It takes the `Weights` of a model and the sparsity,
and returns {name: mask}, True where a weight goes. Weights that are zero go first, so that what
was pruned before stays pruned. Which of equal magnitudes go is decided by their order.

Source of the first three: See et al. 2016, Compression of Neural Machine Translation Models via
Pruning (arXiv 1606.09274), section 3.2; Kim & Rush 2016 take class_blind.
"""

import torch

from fairseq_seqkd.models.parameters import fraction_of_zeros
from fairseq_seqkd.registry import Axis

SCHEMES = Axis("prune_scheme")

# Those that take whole units, by the names that Weights has for them.
_OF_UNITS = ("heads", "ffn")
# So many weights may be zero by accident, or are those of the padding symbol.
_BY_ACCIDENT = 0.005


class Scheme:
    """A scheme for one model.

    Args:
        name: of the axis SCHEMES
        weights: `Weights` of the model
    Raises:
        ValueError: the scheme takes heads or units, and the model has none
    """

    def __init__(self, name, weights):
        self.name = name
        self.weights = weights
        self.units = getattr(weights, name) if name in _OF_UNITS else []
        self._masks = SCHEMES.resolve(name, {})
        if name in _OF_UNITS and not self.units:
            raise ValueError(
                f"the pruning scheme is {name}, but the model has none, or none that is not "
                "skipped. Expected a model of fairseq's Transformer layers, or one of "
                f"{', '.join(one for one in SCHEMES.options if one not in _OF_UNITS)}."
            )

    def masks(self, sparsity):
        """{name: mask}, True in what goes at a sparsity.

        Raises:
            ValueError: there are weights that are no numbers, and cannot be compared
        """
        for name, tensor in self.weights.matrices.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(
                    f"{name} has weights that are infinite or no numbers (NaN), which cannot "
                    "be compared: training has diverged. Take an earlier checkpoint."
                )
        return self._masks(self.weights, sparsity)

    def describe(self):
        """How much is pruned, in words."""
        if not self.units:
            return f"{100 * self.share():.2f} % of the weights are zero"
        numbers = sorted({some.number for some in self.units})
        each = " or ".join(map(str, numbers))
        return (
            f"{100 * self.share():.2f} % of the {self.name} are zero (each of "
            f"{len(self.units)} modules has {each})"
        )

    def dead(self):
        """{name: mask} of what is zero and has to stay so."""
        return self.weights.dead(self.units)

    def share(self):
        """The share of the model's units, or of its weights if it takes those, that is zero."""
        if not self.units:
            return fraction_of_zeros(self.weights.matrices)
        dead = sum(int(some.dead().sum()) for some in self.units)
        return dead / sum(some.number for some in self.units)

    def refuse_pruned(self, path):
        """Refuse a model of which more is zero than by accident, by whatever scheme.

        Args:
            path: of its file
        Raises:
            ValueError: it was pruned before
        """
        found = max(self.share(), fraction_of_zeros(self.weights.matrices))
        if found > _BY_ACCIDENT:
            raise ValueError(
                f"{path!r} was pruned before: {found:.3f} of it is zero. With --again it is "
                "pruned further."
            )

    def refuse_sparsity(self, sparsity, name):
        """Refuse a sparsity that would bring weights back, or take no unit of any module.

        Args:
            sparsity: what is asked for
            name: of its flag
        Raises:
            ValueError: says what is expected
        """
        most = max((some.number for some in self.units), default=0)
        if most and sparsity > 0 and round(sparsity * most) < 1:
            raise ValueError(
                f"{name} is {sparsity}, which is none of {most} {self.name}: expected more "
                f"than {0.5 / most:.3f}"
            )
        found = self.share()
        if found > sparsity + _BY_ACCIDENT:
            raise ValueError(
                f"{name} is {sparsity}, but {found:.3f} of the model is zero already: expected "
                f"a sparsity from {found:.3f} on, or a model that is less sparse"
            )


@SCHEMES.option()
def class_blind(weights, sparsity):
    """The smallest of all weights, whatever their class."""
    return smallest(magnitudes(weights.matrices), sparsity)


@SCHEMES.option()
def class_uniform(weights, sparsity):
    """The same share of every class: its smallest weights."""
    masks = {}
    for members in weights.classes.values():
        masks.update(smallest(magnitudes(members), sparsity))
    return masks


@SCHEMES.option()
def class_distribution(weights, sparsity):
    """The smallest in proportion to their class's standard deviation.

    A weight of class c goes if |w| < lambda * sigma_c, with one lambda for all.
    """
    scores = {}
    for members in weights.classes.values():
        sigma = (
            torch.cat([one.detach().flatten() for one in members.values()])
            .double()
            .std(unbiased=False)
        )
        for name, magnitude in magnitudes(members).items():
            scores[name] = magnitude / sigma if sigma > 0 else magnitude
    return smallest(scores, sparsity)


@SCHEMES.option()
def heads(weights, sparsity):
    """The same share of every attention's heads, as whole heads."""
    return smallest_units(weights.heads, sparsity)


@SCHEMES.option()
def ffn(weights, sparsity):
    """The same share of every layer's feed-forward units, as whole units.

    A layer loses as many as the others, since an architecture has one width for all of them.
    """
    return smallest_units(weights.ffn, sparsity)


def magnitudes(tensors):
    """{name: |w|} in float32."""
    return {name: tensor.detach().abs().float() for name, tensor in tensors.items()}


def smallest(scores, sparsity):
    """Choose the smallest scores, exactly as many as ``sparsity`` of all of them.

    Args:
        scores: {name: tensor}
        sparsity: from 0 to 1
    Returns:
        {name: mask} of the same shapes
    """
    flat = torch.cat([score.flatten() for score in scores.values()])
    number = round(sparsity * len(flat))
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    if number > 0:
        threshold = flat.kthvalue(number).values
        torch.lt(flat, threshold, out=chosen)
        equal = (flat == threshold).nonzero().squeeze(-1)
        chosen[equal[: number - int(chosen.sum())]] = True
    parts = chosen.split([score.numel() for score in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts)}


def smallest_units(units, sparsity):
    """Choose each module's smallest units; one of them stays, whatever the sparsity.

    Args:
        units: list of `Units`
    """
    masks = {}
    for some in units:
        number = min(round(sparsity * some.number), some.number - 1)
        order = some.magnitudes().sort(stable=True).indices
        chosen = torch.zeros_like(order, dtype=torch.bool)
        chosen[order[:number]] = True
        masks.update(some.masks(chosen))
    return masks
