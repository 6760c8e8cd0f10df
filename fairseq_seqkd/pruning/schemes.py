"""Which weights are pruned: those of the smallest magnitude, compared in one way or another.

A scheme takes the :class:`~fairseq_seqkd.pruning.weights.Weights` of a model and the sparsity,
and returns {name: mask}, True where a weight goes. Weights that are zero go first, so that what
was pruned before stays pruned. Which of equal magnitudes go is decided by their order.

Source of the first three: See et al. 2016, Compression of Neural Machine Translation Models via
Pruning (arXiv 1606.09274), section 3.2; Kim & Rush 2016 take class_blind.
"""

import torch

from fairseq_seqkd.objectives.axis import Axis

SCHEMES = Axis("prune_scheme")

# Those that take whole units, by the names that Weights has for them.
STRUCTURED = ("heads", "ffn")


@SCHEMES.value()
def class_blind(weights, sparsity):
    """The smallest of all weights, whatever their class."""
    return smallest(magnitudes(weights.matrices), sparsity)


@SCHEMES.value()
def class_uniform(weights, sparsity):
    """The same share of every class: its smallest weights."""
    masks = {}
    for members in weights.classes.values():
        masks.update(smallest(magnitudes(members), sparsity))
    return masks


@SCHEMES.value()
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


@SCHEMES.value()
def heads(weights, sparsity):
    """The same share of every attention's heads, as whole heads."""
    return smallest_units(weights.heads, sparsity)


@SCHEMES.value()
def ffn(weights, sparsity):
    """The same share of every layer's feed-forward units, as whole units.

    A layer loses as many as the others, since an architecture has one width for all of them.
    """
    return smallest_units(weights.ffn, sparsity)


def units_of(scheme, weights):
    """The heads or feed-forward units that a scheme takes as a whole; none if it takes weights.

    Args:
        scheme: its name
        weights: :class:`~fairseq_seqkd.pruning.weights.Weights`
    Raises:
        ValueError: the model has none of them
    """
    if scheme not in STRUCTURED:
        return []
    units = getattr(weights, scheme)
    if not units:
        raise ValueError(
            f"the pruning scheme is {scheme}, but the model has none, or none that is not "
            "skipped. Expected a model of fairseq's Transformer layers, or one of class_blind, "
            "class_uniform, class_distribution."
        )
    return units


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
        units: list of :class:`~fairseq_seqkd.pruning.weights.Units`
    """
    masks = {}
    for some in units:
        number = min(round(sparsity * some.number), some.number - 1)
        order = some.magnitudes().sort(stable=True).indices
        chosen = torch.zeros_like(order, dtype=torch.bool)
        chosen[order[:number]] = True
        masks.update(some.masks(chosen))
    return masks
