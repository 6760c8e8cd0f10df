"""Brings student and teacher to one outcome space: here, the tempered vocabulary."""

import torch


def tempered(lprobs, temperature):
    """The distribution softmax(logits / temperature), from its log-probabilities.

    Log-probabilities are logits up to a constant, so an ensemble's average can be
    tempered like a single model's output.

    Args:
        lprobs: (positions, vocab) log-probabilities, float32
        temperature: positive; 1 leaves the distribution as it is, larger is flatter
    Returns:
        (positions, vocab) log-probabilities
    """
    if temperature == 1:
        return lprobs
    return torch.log_softmax(lprobs / temperature, dim=-1)
