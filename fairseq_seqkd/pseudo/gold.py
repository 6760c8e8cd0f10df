"""Which sentences of a split have a gold target."""

import numpy as np


def gold_mask_of(split):
    """(sentences,) True where a `PairSplit` has a gold target that is not empty."""
    if not split.has_gold:
        return np.zeros(len(split), dtype=bool)
    return np.asarray(split.dataset.tgt_sizes) > 1  # 1: EOS only
