"""How a split is cut into chunks."""

import numpy as np


def chunk_size(sentences, smallest=512, largest=4096, most_chunks=10_000):
    """Sentences a chunk: ``smallest``, or up to ``largest`` where there would be many files.

    Small chunks are shared out well, and little is lost with a killed process; large ones
    keep the number of files down, and have to fit into memory with all their hypotheses.
    """
    return min(largest, max(smallest, -(-sentences // most_chunks)))


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
