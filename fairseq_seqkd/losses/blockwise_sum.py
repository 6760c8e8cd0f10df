"""Weighted sums over positions x vocabulary that look at a few positions at a time.

A position's gradient is computed as soon as its value is, so that nothing between the logits
and the loss is kept for more than one chunk. On a CPU a chunk stays in the cache, which makes
this faster than the same sum over whole tensors.

Positions are those of a batch that have a target: nothing is computed at padding. Tensors of
(positions, ...) have them row by row.
"""

import functools

import torch

# Numbers in a chunk: the size of a CPU's cache, and enough to keep a GPU busy.
_BLOCK_ELEMENTS = {"cpu": 2**20, "cuda": 2**25}


class TargetPositions:
    """Where the targets of a batch stand.

    Args:
        mask: (batch, length) True where there is a target
    Attributes:
        index: (positions,) counted through the flattened batch
    """

    def __init__(self, mask):
        self.mask = mask
        self.index = mask.flatten().nonzero().squeeze(-1)

    def __len__(self):
        return len(self.index)

    @functools.cached_property
    def rows(self):
        """(positions,) the row of each."""
        return self.index.div(max(self.mask.size(1), 1), rounding_mode="floor")

    def take(self, tensor):
        """(positions, ...) what stands there in a (batch, length, ...) tensor."""
        return tensor.flatten(0, 1).index_select(0, self.index)

    def spread(self, values, elsewhere=0):
        """(batch, length) the (positions,) values, each at its position.

        Args:
            values: of any type
            elsewhere: the value at all other positions
        """
        whole = values.new_full((self.mask.numel(),), elsewhere)
        return whole.index_copy_(0, self.index, values).view_as(self.mask)


def position_slices(positions, width, device):
    """Slices that together are all positions, one or more.

    Args:
        positions: how many there are
        width: numbers a position
        device: where they are
    """
    size = max(
        1, _BLOCK_ELEMENTS.get(torch.device(device).type, _BLOCK_ELEMENTS["cuda"]) // width
    )
    return [slice(first, first + size) for first in range(0, max(positions, 1), size)]


def weighted_sum(values_of, weights, logits, width=None):
    """The sum of weight times value over positions, and its gradient for the logits.

    Args:
        values_of: called with (n, vocab) float32 logits and the slice of n positions that they
            are of; returns a dictionary of (n,) tensors
        weights: a dictionary of (positions,) tensors for some of these values; where a weight
            is 0 the value does not matter, even if it is infinite
        logits: (positions, vocab), of any floating type; or what ``values_of`` computes
            logits from
        width: numbers a position that are computed at once; None: of ``logits``
    Returns:
        the sum, which may be differentiated once and once only; and all values, (positions,)
        tensors without gradient
    """
    values = {}
    width = width or logits.size(-1)
    return _WeightedSum.apply(logits, values_of, weights, values, width), values


def masked_sum(mask, values):
    """The sum of (positions,) values where the mask is True, whatever stands elsewhere."""
    return torch.where(mask, values, torch.zeros_like(values)).sum()


def smoothed_nll_weights(weight, epsilon, vocab):
    """Weights of log-probabilities that make fairseq's label-smoothed NLL.

    Every symbol but the target has epsilon / (vocab - 1).

    Args:
        weight: (positions,) of the NLL
    Returns:
        (positions,) weights of the target's log-probability and of the vocabulary's sum,
        which is left out without smoothing, since it may be infinite
    """
    of_symbol = epsilon / (vocab - 1)
    weights = {"target_lprob": -(1 - epsilon - of_symbol) * weight}
    if epsilon > 0:
        weights["summed_lprob"] = -of_symbol * weight
    return weights


def at_least_float32(tensor):
    """The tensor in float32, or in double precision if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, values_of, weights, values, width):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        # Half precision would lose small gradients here, before the loss is scaled up.
        gradient = torch.empty_like(logits, dtype=dtype) if logits.requires_grad else None
        parts = []
        for positions in position_slices(len(logits), width, logits.device):
            chunk = at_least_float32(logits[positions]).detach()
            chunk.requires_grad_(logits.requires_grad)
            with torch.set_grad_enabled(logits.requires_grad):
                part = values_of(chunk, positions)
            if gradient is not None:
                gradient[positions] = _gradient(chunk, part, weights, positions)
            parts.append({name: value.detach() for name, value in part.items()})
        values.update({name: torch.cat([one[name] for one in parts]) for name in parts[0]})
        ctx.gradient, ctx.dtype = gradient, logits.dtype
        total = torch.zeros((), dtype=dtype, device=logits.device)
        return total + sum(masked_sum(w != 0, w * values[name]) for name, w in weights.items())

    @staticmethod
    def backward(ctx, scale):
        if ctx.gradient is None:
            raise RuntimeError("this loss was differentiated before: its gradient is used up")
        gradient, ctx.gradient = ctx.gradient, None
        # On a CPU a look is cheaper than a multiplication by 1; a GPU would have to wait.
        if scale.device.type != "cpu" or scale != 1:
            gradient.mul_(scale)
        return gradient.to(ctx.dtype), None, None, None, None


def _gradient(chunk, values, weights, positions):
    """(n, vocab) of the weighted sum of some positions."""
    names = [name for name in weights if values[name].requires_grad]
    if not names:
        return torch.zeros_like(chunk)
    outputs = [values[name] for name in names]
    return torch.autograd.grad(outputs, chunk, [weights[name][positions] for name in names])[0]
