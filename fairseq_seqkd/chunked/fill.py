"""The loop that fills a store: each worker makes its own chunks, in the order of the plan."""

import itertools

from fairseq_seqkd.io.progress import SentenceProgress


def missing_chunks(store, n_chunks, worker):
    """The indices of missing chunks: of all workers, and of this one.

    This worker's damaged chunks are removed, and count as missing.

    Args:
        store: `ChunkedStore`
        n_chunks: how many it has when it is finished
        worker: `Worker`
    """
    own = worker.chunks_of(n_chunks)
    missing = store.missing(n_chunks, own)
    return missing, [index for index in missing if index in own]


def fill_chunks(store, chunks, indices, start, worker):
    """Make some chunks of a store.

    Args:
        store: `ChunkedStore`
        chunks: the sentence ids of every chunk, as the store's ``plan`` gives them
        indices: the chunks to make
        start: called with the ids of a chunk, begins to work on it and returns an iterator
            over its sentences in any order; each has an ``id`` and ``n_tokens``
        worker: `Worker`; the first one shows the progress
    """
    total = sum(len(chunks[index]) for index in indices)
    with SentenceProgress(total, disable=worker.rank != 0) as progress:
        started = ((index, start(chunks[index])) for index in indices)
        for index, sentences in prefetch_by_one(started):
            by_id = {}
            for sentence in sentences:
                by_id[sentence.id] = sentence
                progress.add(sentence.n_tokens)
            store.write_chunk(index, [by_id[id_] for id_ in chunks[index].tolist()])


def prefetch_by_one(items):
    """Yield each item after the next one was taken from ``items``, so that it has started."""
    items = iter(items)
    waiting = list(itertools.islice(items, 1))
    for item in items:
        yield waiting.pop()
        waiting.append(item)
    yield from waiting
