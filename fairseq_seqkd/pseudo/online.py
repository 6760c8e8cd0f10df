"""Pseudo-targets without a store: the teacher translates every batch inside the training step.

For data that is never the same twice, such as sampled subwords or a stream.
"""

import numpy as np
import torch

from fairseq_seqkd.models.batches import replace_targets


def with_pseudo_targets(sample, teacher, search, selector, draw=0):
    """Replace a batch's gold targets by the teacher's; gold stays as the batch's ``gold``.

    A sentence keeps its gold target if it is too long for the teacher, or nothing finished.

    Args:
        sample: a batch of fairseq's LanguagePairDataset, on the teacher's device
        teacher: `Teacher`
        search: `SearchOptions`
        selector: takes one of the hypotheses, see ``selectors.py``
        draw: another number draws other samples, if the search samples
    Returns:
        another dictionary; ``sample`` stays as it is
    """
    dictionary = teacher.task.target_dictionary
    inputs, gold = sample["net_input"], sample["target"]
    rows = (inputs["src_lengths"] <= teacher.max_source_positions()).nonzero().flatten()
    targets = {}
    if len(rows):
        some = {key: inputs[key][rows] for key in ("src_tokens", "src_lengths")}
        found = teacher.generate(some, search, sample["id"][rows], draw)
        for row, hypotheses in zip(rows.tolist(), found):
            reference = gold[row][gold[row].ne(dictionary.pad())]
            target = _select(hypotheses, selector, reference)
            if target is not None:
                targets[row] = target
    if not targets:
        return sample
    return replace_targets(sample, list(targets), list(targets.values()), dictionary)


def _select(hypotheses, selector, gold):
    """(length,) the selected hypothesis; None if none finished."""
    pairs = [
        (one["tokens"].cpu().numpy(), float(one["score"]))
        for one in hypotheses
        if one["finished"] and len(one["tokens"]) > 1
    ]
    if not pairs:
        return None
    selected = selector(pairs, gold.cpu())
    return torch.from_numpy(pairs[selected][0].astype(np.int64)).to(gold)
