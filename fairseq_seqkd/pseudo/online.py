"""Pseudo-targets without a store: the teacher translates every batch in the training step.

For data that is never the same twice, such as sampled subwords or a stream.
"""

import numpy as np
import torch

from fairseq_seqkd.models.batches import replace_targets


def with_pseudo_targets(sample, teacher, search, selector, draw=0):
    """Replace a batch's gold targets by the teacher's; gold becomes the batch's ``gold``.

    A sentence keeps its gold target if it is too long for the teacher, or if no hypothesis
    finished. If that is so for all, the batch is returned as it is, without ``gold``.

    Args:
        sample: a batch of fairseq's LanguagePairDataset, on the teacher's device; it is not
            changed
        teacher: `Teacher`
        search: `SearchOptions`
        selector: see ``selectors.py``
        draw: the number of the draw, if the search samples; each gives other samples
    Returns:
        the new batch
    """
    dictionary = teacher.task.target_dictionary
    inputs, gold = teacher.inputs_of(sample), sample["target"]
    rows = (inputs["src_lengths"] <= teacher.max_source_positions()).nonzero().flatten()
    if not len(rows):
        return sample
    sources = {key: inputs[key][rows] for key in ("src_tokens", "src_lengths")}
    nbest_lists = teacher.generate(sources, search, sample["id"][rows], draw)
    targets = {}
    for row, hypotheses in zip(rows.tolist(), nbest_lists):
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
        (hypothesis["tokens"].cpu().numpy(), float(hypothesis["score"]))
        for hypothesis in hypotheses
        if hypothesis["finished"] and len(hypothesis["tokens"]) > 1
    ]
    if not pairs:
        return None
    tokens, _ = pairs[selector(pairs, gold.cpu())]
    return torch.from_numpy(tokens.astype(np.int64)).to(gold)
