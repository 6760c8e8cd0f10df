"""Sentence pairs that a split has several times: the teacher scores the first of them alone.

The file repeats.npy of a cache has the id of the first equal pair for every sentence. A split
without repeated pairs has no such file.
"""

import hashlib
import io
import os

import numpy as np

from fairseq_seqkd.io.files import atomic_file

NAME = "repeats.npy"


def first_equal_pairs(dataset, student_sources=None):
    """The first sentence of a data set that equals each one.

    Two different pairs are taken for equal with a probability of n^2 / 2^129, n being the
    number of pairs.

    Args:
        dataset: a fairseq data set, whose items have a "target", and a "source" if that is text
        student_sources: (length,) token ids of each sentence, which must be equal as well
    Returns:
        (sentences,) ids, none above its index
    """
    sums = np.empty((len(dataset), 2), np.uint64)
    for id_ in range(len(dataset)):
        item, more = dataset[id_], student_sources
        parts = [item["source"], item["target"], *([] if more is None else [more[id_]])]
        sums[id_] = np.frombuffer(_sum_of(parts), np.uint64)
    _, first, inverse = np.unique(
        sums.view("u8,u8").ravel(), return_index=True, return_inverse=True
    )
    return first[inverse.ravel()]


def _sum_of(parts):
    digest = hashlib.blake2b(digest_size=16)
    for tokens in parts:
        digest.update(len(tokens).to_bytes(8, "little"))
        digest.update(tokens.numpy().tobytes())
    return digest.digest()


def write_repeats(cache, first):
    """Store the result of `first_equal_pairs`; processes that do it at once agree.

    Returns:
        its entry of the manifest: how many pairs differ, and the file's SHA-256
    """
    content = io.BytesIO()
    np.save(content, first.astype(np.uint32))
    os.makedirs(cache.root, exist_ok=True)
    if (
        not cache.chunks.find()
    ):  # chunks without a manifest are refused as soon as it is written
        with atomic_file(cache.path(NAME)) as file:
            file.write(content.getvalue())
    checksum = hashlib.sha256(content.getvalue()).hexdigest()
    return {"different_pairs": int((first == np.arange(len(first))).sum()), "repeats": checksum}


def load_repeats(cache):
    """The ids that `write_repeats` stored; None if all pairs of the split differ.

    Raises:
        FileNotFoundError: the file is missing
        ValueError: it is damaged
    """
    checksum = cache.manifest.get("repeats")
    if checksum is None:
        return None
    path = cache.path(NAME)
    with open(path, "rb") as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != checksum:
        raise ValueError(
            f"{cache.FLAG}: {path!r} is damaged: it does not have the checksum that "
            "manifest.json names. Make the cache again: fairseq-seqkd cache with --overwrite."
        )
    return np.load(io.BytesIO(content), allow_pickle=False).astype(np.int64)


def scored_ids(cache, n_sentences):
    """The ids of the sentences that the teacher scores, in rising order."""
    first = load_repeats(cache)
    ids = np.arange(n_sentences)
    return ids if first is None else ids[first == ids]
