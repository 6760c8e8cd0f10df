"""Keeps pruned weights at zero around every step of any fairseq optimizer.

Momentum and weight decay move weights even without a gradient, so pruned ones would come back.
The mask is derived from the weights: what is zero before a step is zero after it. There is no
state to save, and a resumed training continues with the same mask.
"""

import torch


@torch.no_grad()
def mask_gradients(masks, parameters):
    """Set the gradients of pruned weights to zero, before clipping: they inflate the norm.

    Args:
        masks: {name: mask}, True where the parameter stays zero
        parameters: {name: parameter}
    """
    for name, mask in masks.items():
        gradient = parameters[name].grad
        if gradient is not None and not gradient.is_sparse:
            gradient.masked_fill_(mask, 0)


@torch.no_grad()
def mask_weights(masks, parameters, optimizer):
    """Set weights to zero, and also their float32 masters, which the next step starts from.

    Args:
        masks, parameters: as for `mask_gradients`
        optimizer: fairseq's
    """
    masters = masters_of(optimizer)
    for name, mask in masks.items():
        parameter = parameters[name]
        parameter.data.masked_fill_(mask, 0)
        if id(parameter) in masters:
            masters[id(parameter)].masked_fill_(mask, 0)


def masters_of(optimizer):
    """The float32 master copies of an optimizer's parameters, {id of a parameter: tensor}.

    Only ``--fp16`` and ``--bf16`` have them; single precision, ``--amp`` and
    ``--memory-efficient-fp16`` do not.
    """
    masters = getattr(optimizer, "fp32_params", None)
    if masters is None:
        return {}
    parameters = optimizer.fp16_params
    if not optimizer.has_flat_params:
        return {id(p): master.data for p, master in zip(parameters, masters)}
    views = {}
    flat = masters if isinstance(masters, dict) else {None: masters}
    for device, tensor in flat.items():
        members = [p for p in parameters if len(flat) == 1 or p.device.index == device]
        pieces = tensor.data.split([p.numel() for p in members])
        views.update((id(p), piece.view_as(p)) for p, piece in zip(members, pieces))
    return views
