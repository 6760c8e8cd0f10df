"""Writes data-bins made of training pairs of others, each pair any number of times."""

import os

import numpy as np

from fairseq_seqkd.models.data_folders import copy_other_splits
from fairseq_seqkd.models.datasets import write_entries

SPLIT = "train"


def write_pairs(folder, splits, ids):
    """Write a data-bin; the other splits and the dictionaries are those of the first split's.

    Args:
        folder: an empty folder
        splits: list of `PairSplit`, the training sets of data-bins of one direction and with
            the same dictionaries
        ids: for each of them (pairs,) the ids of its pairs, in the order in which they stand
            in the new data-bin
    """
    first = splits[0]
    copy_other_splits(first.folder, folder, SPLIT)
    for side, language in (("src", first.source_lang), ("tgt", first.target_lang)):
        pair = f"{SPLIT}.{first.source_lang}-{first.target_lang}.{language}"
        datasets = [getattr(split.dataset, side) for split in splits]
        if datasets[0] is None:  # sources without targets
            continue
        vocab_size = len(getattr(first.dataset, f"{side}_dict"))
        write_sentences(os.path.join(folder, pair), datasets, ids, vocab_size)


def write_sentences(prefix, datasets, ids, vocab_size):
    """Write sentences of several data sets one after the other, each stored once.

    Args:
        prefix: of the new files
        datasets: fairseq's data sets of token ids
        ids: for each data set (entries,) ids of its sentences
        vocab_size: decides the bytes of a token
    """
    used, entries = zip(*(np.unique(one, return_inverse=True) for one in ids))
    begins = np.cumsum([0, *map(len, used)])
    entries = [one.ravel() + begin for one, begin in zip(entries, begins)]
    once = (dataset[int(id_)] for dataset, one in zip(datasets, used) for id_ in one)
    sizes = [np.asarray(dataset.sizes)[one] for dataset, one in zip(datasets, used)]
    write_entries(*(prefix, once, np.concatenate(sizes), np.concatenate(entries), vocab_size))
