"""Pseudo-targets without a store: the teacher translates every batch inside the training step.

For data that is never the same twice, such as sampled subwords or a stream.
"""

import numpy as np
import torch
from fairseq.data import data_utils


def with_pseudo_targets(sample, teacher, search, selector, draw=0, with_gold=False):
    """A batch with the teacher's targets in the place of gold.

    A sentence keeps its gold target if it is too long for the teacher, or nothing finished.

    Args:
        sample: a batch of fairseq's LanguagePairDataset, on the teacher's device
        teacher: :class:`~fairseq_seqkd.teacher.Teacher`
        search: :class:`~fairseq_seqkd.search.SearchOptions`
        selector: what chooses among the hypotheses, see ``select.py``
        draw: another number draws other samples, if the search says to sample
        with_gold: whether the batch is to hold the gold targets as well, as ``gold``
    Returns:
        another dictionary; ``sample`` stays as it is
    """
    dictionary = teacher.task.target_dictionary
    inputs, gold = sample["net_input"], sample["target"]
    targets = [row[row.ne(dictionary.pad())] for row in gold]
    rows = (inputs["src_lengths"] <= teacher.max_source_positions()).nonzero().flatten()
    if len(rows):
        some = {key: inputs[key][rows] for key in ("src_tokens", "src_lengths")}
        found = teacher.generate(some, search, sample["id"][rows], draw)
        for row, hypotheses in zip(rows.tolist(), found):
            targets[row] = _chosen(hypotheses, selector, targets[row])
    changed = {
        **sample,
        "target": _pad(targets, dictionary).to(gold),
        "ntokens": sum(len(target) for target in targets),
        "net_input": {
            **inputs,
            "prev_output_tokens": _pad(targets, dictionary, shifted=True).to(gold),
        },
    }
    if with_gold:
        changed["gold"] = {
            "target": gold,
            "prev_output_tokens": inputs["prev_output_tokens"],
        }
    return changed


def _chosen(hypotheses, selector, gold):
    pairs = [
        (one["tokens"].cpu().numpy(), float(one["score"]))
        for one in hypotheses
        if one["finished"] and len(one["tokens"]) > 1
    ]
    if not pairs:
        return gold
    choice = selector(pairs, gold.cpu())
    return torch.from_numpy(pairs[choice][0].astype(np.int64)).to(gold)


def _pad(targets, dictionary, shifted=False):
    return data_utils.collate_tokens(
        targets, dictionary.pad(), dictionary.eos(), move_eos_to_beginning=shifted
    )
