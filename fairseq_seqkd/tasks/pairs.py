"""A data set of pseudo-target pairs that also carries the gold targets."""

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset, FairseqDataset

from fairseq_seqkd.models.batches import collate_targets


class PairsWithGold(BaseWrapperDataset):
    """Adds the gold targets to a data set with pseudo-targets.

    Its batches have an entry ``gold`` with ``target`` and ``prev_output_tokens``, both
    (batch, length), in the order of the batch's rows. The ``target`` of a sentence without a
    gold target, or with an empty one, is padding, so that no loss is computed there.

    Args:
        pairs: LanguagePairDataset with pseudo-targets
        gold: LanguagePairDataset with the gold targets of the same sentences; None if no
            sentence has one
    """

    def __init__(self, pairs, gold):
        super().__init__(pairs)
        self.gold = gold
        self._no_gold = torch.tensor([pairs.tgt_dict.eos()])

    def __getitem__(self, index):
        gold = self._no_gold if self.gold is None else self.gold.tgt[index]
        return {**self.dataset[index], "gold": gold}

    def collater(self, samples, pad_to_length=None):
        batch = self.dataset.collater(samples, pad_to_length=pad_to_length)
        if not batch:
            return batch
        # The collater sorts by source length; the gold targets must follow.
        gold_of = {sample["id"]: sample["gold"] for sample in samples}
        targets = [gold_of[id_] for id_ in batch["id"].tolist()]
        dictionary, left_pad = self.dataset.tgt_dict, self.dataset.left_pad_target
        gold = collate_targets(targets, dictionary, left_pad)
        gold["target"][[len(target) == 1 for target in targets]] = dictionary.pad()
        return {**batch, "gold": gold}

    def num_tokens(self, index):
        if self.gold is None:
            return self.dataset.num_tokens(index)
        return max(self.dataset.num_tokens(index), self.gold.num_tokens(index))

    def num_tokens_vec(self, indices):
        if self.gold is None:
            return self.dataset.num_tokens_vec(indices)
        return np.maximum(
            self.dataset.num_tokens_vec(indices), self.gold.num_tokens_vec(indices)
        )

    def filter_indices_by_size(self, indices, max_sizes):
        kept, removed = self.dataset.filter_indices_by_size(indices, max_sizes)
        if self.gold is None:
            return kept, removed
        kept, removed_by_gold = self.gold.filter_indices_by_size(kept, max_sizes)
        return kept, removed + removed_by_gold

    def batch_by_size(self, indices, **limits):
        # The wrapped data set would ignore the gold tokens.
        return FairseqDataset.batch_by_size(self, indices, **limits)
