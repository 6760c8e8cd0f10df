"""Scores of hypotheses or pairs by any outside model, read from a file."""

import math
from array import array

import numpy as np

from fairseq_seqkd.pseudo.nbest_lists import parse_item

EXPORT = "fairseq-seqkd merge --nbest-list FILE"


def list_sizes(store):
    """(sentences,) numbers of hypotheses in a finished store."""
    sizes = np.zeros(store.manifest["data"]["sentences"], dtype=np.int64)
    for path in store.chunks.find().values():
        with np.load(path, allow_pickle=False) as chunk:
            sizes[chunk["ids"]] = chunk["n_hypotheses"]
    return sizes


def read_list_scores(file, sizes):
    """Read a score for each hypothesis of the exported n-best list.

    Args:
        file: `TextFile`
        sizes: (sentences,) numbers of hypotheses
    Returns:
        (hypotheses,) scores
    Raises:
        ValueError: a line has no score; the count is another, or the sentence numbers of a
            list are: both counts, and the first line where they part
    """
    ids = np.repeat(np.arange(len(sizes)), sizes)
    scores, parts = array("d"), None
    for number, score, id_ in read_scores(file):
        index = len(scores)
        if parts is None and id_ is not None and (index >= len(ids) or id_ != ids[index]):
            expected = f"of sentence {ids[index]}" if index < len(ids) else "no more lines"
            parts = f"line {number} is of sentence {id_}, expected {expected}"
        scores.append(score)
    if parts is None and len(scores) < len(ids):
        id_ = ids[len(scores)]
        rank = len(scores) - np.searchsorted(ids, id_) + 1
        parts = f"line {len(scores) + 1} would be hypothesis {rank} of sentence {id_}"
    if parts is None and len(scores) > len(ids):
        parts = f"line {len(ids) + 1} is the first too many"
    if parts is not None:
        raise ValueError(
            f"--scores: {file.name!r} has {len(scores)} scores, and the exported list "
            f"{len(ids)} hypotheses; {parts}. Expected one number a hypothesis, in the order "
            f"of the list ({EXPORT})."
        )
    return np.array(scores)


def read_scores(file):
    """Yield (line number, score, sentence number) of a file of scores.

    A line is one number, or an item of an n-best list, whose last field is the score. The
    sentence number is None for the former.

    Args:
        file: `TextFile`
    Raises:
        ValueError: a line is neither
    """
    for number, line, _ in file.lines():
        item = parse_item(line)
        try:
            id_, score = item[:2] if item else (None, float(line))
        except ValueError:
            score = math.nan
        if math.isnan(score):
            raise ValueError(
                f"{file.name}:{number}: found {line[:80]!r}, expected one number, or NUMBER "
                "||| hypothesis ||| score"
            )
        yield number, score, id_
