"""A data set of pseudo-target pairs that also carries the gold targets."""

import numpy as np
from fairseq.data import BaseWrapperDataset, FairseqDataset

from fairseq_seqkd.models.batches import collate_targets


class PairsWithGold(BaseWrapperDataset):
    """Adds the gold targets to a data set with pseudo-targets.

    Its batches have an entry ``gold`` with ``target`` and ``prev_output_tokens``, both
    (batch, length), in the order of the batch's rows.

    Args:
        pairs: LanguagePairDataset with pseudo-targets
        gold: LanguagePairDataset with the gold targets of the same sentences
    """

    def __init__(self, pairs, gold):
        super().__init__(pairs)
        self.gold = gold

    def __getitem__(self, index):
        return {**self.dataset[index], "gold": self.gold.tgt[index]}

    def collater(self, samples, pad_to_length=None):
        batch = self.dataset.collater(samples, pad_to_length=pad_to_length)
        if not batch:
            return batch
        # The collater sorts by source length; the gold targets must follow.
        gold_of = {sample["id"]: sample["gold"] for sample in samples}
        targets = [gold_of[id_] for id_ in batch["id"].tolist()]
        dictionary, left_pad = self.gold.tgt_dict, self.gold.left_pad_target
        return {**batch, "gold": collate_targets(targets, dictionary, left_pad)}

    def num_tokens(self, index):
        return max(self.dataset.num_tokens(index), self.gold.num_tokens(index))

    def num_tokens_vec(self, indices):
        return np.maximum(
            self.dataset.num_tokens_vec(indices), self.gold.num_tokens_vec(indices)
        )

    def filter_indices_by_size(self, indices, max_sizes):
        kept, removed = self.dataset.filter_indices_by_size(indices, max_sizes)
        kept, removed_by_gold = self.gold.filter_indices_by_size(kept, max_sizes)
        return kept, removed + removed_by_gold

    def batch_by_size(self, indices, **limits):
        # The wrapped data set would ignore the gold tokens.
        return FairseqDataset.batch_by_size(self, indices, **limits)
