"""Divides a split into chunks of sentences."""

import numpy as np


def chunk_size(sentences, smallest=512, largest=4096, most_chunks=10_000):
    """The sentences per chunk: ``smallest``, or up to ``largest`` for very large splits.

    Small chunks balance the workers' load, and a killed process loses little; large chunks
    keep the number of files down, but must fit into memory with all their hypotheses.

    Args:
        sentences: how many sentences the split has
        smallest, largest: the bounds
        most_chunks: above this number of chunks they grow
    """
    return min(largest, max(smallest, -(-sentences // most_chunks)))


def plan_chunks(lengths, chunk_size):
    """Divide a split into chunks of sentences of similar length, the longest first.

    The borders depend on the lengths and ``chunk_size`` alone, not on the number of
    processes. The longest come first, so that memory runs out at once or never, and the
    estimate of the time left is too high rather than too low.

    Args:
        lengths: (sentences,) lengths in tokens, or any sort keys
        chunk_size: sentences per chunk
    Returns:
        a list of arrays of sentence ids
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return [order[i : i + chunk_size] for i in range(0, len(order), chunk_size)]
