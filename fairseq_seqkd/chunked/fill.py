"""The loop that fills a store: each worker computes its chunks in the order of the plan."""

import itertools

import numpy as np

from fairseq_seqkd.io.progress import WorkProgress


def missing_chunks(store, n_chunks, worker):
    """List the chunks that a store lacks; this worker's damaged ones are removed first.

    Args:
        store: `ChunkedStore`
        n_chunks: how many chunks a finished store has
        worker: `Worker`
    Returns:
        the indices of all missing chunks, and those among them that are this worker's
    """
    indices = worker.chunk_indices(n_chunks)
    missing = store.missing(n_chunks, check=indices)
    return missing, [index for index in missing if index in indices]


def fill_chunks(store, chunks, indices, start, worker, lengths):
    """Compute some chunks and write them to a store.

    Args:
        store: `ChunkedStore`
        chunks: the sentence ids of every chunk, as the store's ``plan`` gives them
        indices: the chunks to compute
        start: called with the ids of a chunk, starts work on it and returns an iterator
            over its sentences in any order; each has an ``id``
        worker: `Worker`; the first one shows the progress
        lengths: (sentences,) lengths in tokens, by which the time left is estimated
    """
    ids = np.concatenate([chunks[index] for index in indices])
    tokens = int(np.sum(lengths[ids], dtype=np.int64))
    with WorkProgress(tokens, len(ids), disable=worker.rank != 0) as progress:
        started = ((index, start(chunks[index])) for index in indices)
        for index, sentences in prefetch_by_one(started):
            by_id = {}
            for sentence in sentences:
                by_id[sentence.id] = sentence
                progress.add(lengths[sentence.id])
            store.write_chunk(index, [by_id[id_] for id_ in chunks[index].tolist()])


def prefetch_by_one(items):
    """Prefetch by one: start the next item before yielding this one."""
    items = iter(items)
    waiting = list(itertools.islice(items, 1))
    for item in items:
        yield waiting.pop()
        waiting.append(item)
    yield from waiting
