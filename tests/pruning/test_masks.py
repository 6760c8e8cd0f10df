"""Pruned weights stay zero under every one of fairseq's optimizers."""

import copy

import pytest
import torch
from conftest import HALF
from fairseq import optim
from fairseq.optim.fp16_optimizer import FP16Optimizer
from omegaconf import OmegaConf

from fairseq_seqkd.pruning.masks import mask_gradients, mask_weights, masters_of
from fairseq_seqkd.pruning.weights import Weights

ADAM = {"_name": "adam", "adam_betas": "(0.9, 0.98)", "adam_eps": 1e-8, "weight_decay": 0.1}
SGD = {"_name": "sgd", "momentum": 0.9, "weight_decay": 0.1}
COMMON = {"fp16_init_scale": 4, "fp16_scale_window": 100, "fp16_scale_tolerance": 0.0}
COMMON.update(threshold_loss_scale=None, min_loss_scale=1e-4, bf16=False)


def config(optimizer):
    more = {"use_old_adam": True, "fp16_adam_stats": False, "lr": [0.01], "tpu": False}
    return OmegaConf.create({"common": COMMON, "optimizer": {**optimizer, **more}})


def model():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def build(kind, cfg, parameters):
    """One of fairseq's optimizers over half or single precision parameters."""
    if kind == "single":
        return optim.build_optimizer(cfg.optimizer, parameters)
    flat = torch.nn.Parameter(torch.cat([p.data.float().flatten() for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    masters = {None: flat} if kind == "flat" else None
    if masters is None:
        masters = FP16Optimizer.build_fp32_params(cfg.optimizer, parameters, flatten=False)
    inner = optim.build_optimizer(cfg.optimizer, [flat] if kind == "flat" else masters)
    return FP16Optimizer(cfg, parameters, inner, masters)


@pytest.mark.parametrize("optimizer", [ADAM, SGD], ids=lambda one: one["_name"])
@pytest.mark.parametrize(
    "kind", ["single", *(pytest.param(one, marks=HALF) for one in ("masters", "flat"))]
)
def test_nothing_comes_back(kind, optimizer):
    student = model()
    student = student if kind == "single" else student.half()
    parameters = dict(student.named_parameters())
    cfg = config(optimizer)
    cfg.optimization = {"update_freq": [1]}
    cfg.distributed_training = {"distributed_world_size": 1}
    cfg.common.model_parallel_size = 1
    steps = build(kind, cfg, list(parameters.values()))

    def step(masked):
        """With a momentum that knows all weights; gradients of any size."""
        torch.manual_seed(3)
        steps.zero_grad()
        for parameter in parameters.values():
            parameter.grad = torch.randn_like(parameter)
        if kind != "single":
            steps._needs_sync = True
        masks = Weights(parameters).zero_masks() if masked else {}
        mask_gradients(masks, parameters)
        assert not any(parameters[name].grad[mask].any() for name, mask in masks.items())
        steps.clip_grad_norm(1.0)
        steps.step()
        mask_weights(masks, parameters, steps)

    for _ in range(3):
        step(masked=False)
    pruned = {n: p.abs() < p.abs().median() for n, p in parameters.items() if p.dim() == 2}
    mask_weights(pruned, parameters, steps)
    before = copy.deepcopy({name: p.data for name, p in parameters.items()})
    for _ in range(50):
        step(masked=True)
    for name, parameter in parameters.items():
        if name in pruned:
            assert (parameter[pruned[name]] == 0).all()
            assert (parameter[~pruned[name]] != before[name][~pruned[name]]).all()
        else:
            assert (parameter != before[name]).any()
    masters = masters_of(steps)
    assert len(masters) == (0 if kind == "single" else len(parameters))
    for name in pruned:
        if masters:
            assert (masters[id(parameters[name])][pruned[name]] == 0).all()


def test_without_masks_they_do_come_back():
    student = model()
    parameters = dict(student.named_parameters())
    steps = build("single", config(ADAM), list(parameters.values()))
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    steps.step()
    mask_weights({"0.weight": parameters["0.weight"] != 0}, parameters, steps)
    steps.zero_grad()
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    steps.step()
    assert (parameters["0.weight"] != 0).any()
