"""How a split is cut into chunks, and which process makes which."""

import numpy as np


def plan_chunks(lengths, chunk_size):
    """Cut a split into chunks of sentences of similar length, the longest first.

    The borders follow from the lengths and ``chunk_size`` alone, never from the number
    of processes. The longest come first, so that memory runs out at once or never, and
    an estimate of the time left errs on the long side.

    Args:
        lengths: (sentences,) source lengths in tokens
        chunk_size: sentences a chunk
    Returns:
        a list of arrays of sentence ids
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return [order[i : i + chunk_size] for i in range(0, len(order), chunk_size)]


def share(n_chunks, rank, world_size):
    """The indices of the chunks that process ``rank`` of ``world_size`` makes."""
    return range(rank, n_chunks, world_size)
