"""A cache of some sentences of another: their rows are copied, and no teacher runs."""

import torch

from fairseq_seqkd.cache.build import DEFAULTS, chunks_of, open_cache, seal
from fairseq_seqkd.cache.store import DistributionCache


def copy_cache(root, source, split, ids):
    """Write a cache for a split that has some sentences of another cache's split.

    Args:
        root: the new folder
        source: `CachedSentences` of the other cache
        split: the new `Split`
        ids: (sentences of the new split,) their ids in the other one
    """
    cache, manifest = DistributionCache(root), source.store.manifest
    settings = {name: manifest[name] for name in (*DEFAULTS, "max_tokens")}
    open_cache(cache, split, manifest["teacher"], settings, torch.device("cpu"))
    for index, chunk in enumerate(chunks_of(cache, split)):
        copies = [source.copy_of(int(ids[id_]), id_) for id_ in chunk.tolist()]
        cache.write_chunk(index, copies)
    seal(cache)
