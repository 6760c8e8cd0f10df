"""Keeps at zero what is zero, around every step of any of fairseq's optimizers.

Momentum and weight decay move weights without a gradient; what is pruned would come back. The
mask is the weights themselves: whatever is zero before a step is zero after it. So there is no
state that could be lost, and a resumed training goes on with the same mask.
"""

import torch


@torch.no_grad()
def mask_gradients(dead, parameters):
    """Set gradients to zero, before they are clipped: they would only inflate the norm.

    Args:
        dead: {name: mask}, True where the parameter is to stay zero
        parameters: {name: parameter}
    """
    for name, mask in dead.items():
        gradient = parameters[name].grad
        if gradient is not None and not gradient.is_sparse:
            gradient.masked_fill_(mask, 0)


@torch.no_grad()
def mask_weights(dead, parameters, optimizer):
    """Set weights to zero, and their float32 masters, from which the next step starts.

    Args:
        dead, parameters: as for `mask_gradients`
        optimizer: fairseq's
    """
    masters = masters_of(optimizer)
    for name, mask in dead.items():
        parameter = parameters[name]
        parameter.data.masked_fill_(mask, 0)
        if id(parameter) in masters:
            masters[id(parameter)].masked_fill_(mask, 0)


def masters_of(optimizer):
    """{id of a parameter: its float32 master copy}, for ``--fp16`` and ``--bf16``.

    Those of single precision, of ``--amp`` and of ``--memory-efficient-fp16`` have none.
    """
    masters = getattr(optimizer, "fp32_params", None)
    if masters is None:
        return {}
    parameters = optimizer.fp16_params
    if not optimizer.has_flat_params:
        return {id(p): master.data for p, master in zip(parameters, masters)}
    found = {}
    flat = masters if isinstance(masters, dict) else {None: masters}
    for device, tensor in flat.items():
        here = [p for p in parameters if len(flat) == 1 or p.device.index == device]
        pieces = tensor.data.split([p.numel() for p in here])
        found.update((id(p), piece.view_as(p)) for p, piece in zip(here, pieces))
    return found
