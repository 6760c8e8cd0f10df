"""Losses in float64 numpy, from a model's probabilities."""

import numpy as np
import torch
from conftest import lprobs_of


def loss_at(update, criterion, student, sample):
    """The loss as the trainer would have it at an update."""
    torch.manual_seed(criterion.cfg.seed + update)
    return criterion(student, sample)[0].item()


def rows_of(student, frozen, sample, pad):
    """Of each row float64 (p, q, target): probabilities (length, vocab), symbols (length,)."""
    inputs = sample["net_input"]
    p = student.get_normalized_probs(student(**inputs), log_probs=True)
    q = lprobs_of(frozen, inputs)
    for p_row, q_row, target in zip(p, q, sample["target"]):
        mask = target.ne(pad)
        probs = (x[mask].detach().double().exp().numpy() for x in (p_row, q_row))
        yield (*probs, target[mask].numpy())


def kl64(first, second):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(first > 0, first * np.log(first / second), 0).sum()
