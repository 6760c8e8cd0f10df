"""Exports a store's n-best lists as text, for models that score them."""

import math

import numpy as np

from fairseq_seqkd.io.files import atomic_file
from fairseq_seqkd.pseudo.external_scores import list_sizes
from fairseq_seqkd.pseudo.selected import select_hypotheses
from fairseq_seqkd.pseudo.selectors import Best


def write_nbest_list(path, store, split, detokenise):
    """Write a store's n-best lists as text: ``0 ||| hypothesis ||| F0= -1.5 ||| -1.5``.

    The number is the sentence's position in the split, from 0; F0 and the last field are the
    stored score in nats, 0 where there is none. In a text, ``|||`` is written as Moses does,
    ``&#124;&#124;&#124;``.

    Args:
        path: the new file
        store: `PseudoTargetStore` with all its chunks
        split: `PairSplit`
        detokenise: `Detokeniser`
    Returns:
        the number of hypotheses
    """
    keep = max(1, int(list_sizes(store).max(initial=0)))
    selected = select_hypotheses(store, split, Best(), keep=keep)
    rows = np.flatnonzero(selected.translated_mask)
    with atomic_file(path) as file:
        for row in rows.tolist():
            text = detokenise.text(selected.tokens(row)).replace("|||", 3 * "&#124;")
            text = " ".join(text.replace("\r", "\n").split("\n"))
            score = float(selected.scores[row])
            score = score if math.isfinite(score) else 0
            file.write(f"{row // keep} ||| {text} ||| F0= {score} ||| {score}\n".encode())
    return len(rows)
