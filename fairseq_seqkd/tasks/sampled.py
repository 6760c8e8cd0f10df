"""A data set whose targets are drawn anew from the n-best lists in every epoch."""

import numpy as np
from fairseq.data import BaseWrapperDataset, FairseqDataset, data_utils


class SampledPairs(BaseWrapperDataset):
    """One pair per sentence: its source, and the hypothesis that the epoch draws.

    fairseq announces the epoch by ``set_epoch`` before it makes batches, which are made anew in
    every epoch, since lengths change.

    Args:
        pairs: LanguagePairDataset with all hypotheses
        lists: `HypothesisLists` of the same data-bin
        seed: of the draws
        temperature: divides total log-probabilities
    """

    can_reuse_epoch_itr_across_epochs = False

    def __init__(self, pairs, lists, seed, temperature):
        super().__init__(pairs)
        self.lists, self.seed, self.temperature = lists, seed, temperature
        self.tgt_dict, self.left_pad_target = pairs.tgt_dict, pairs.left_pad_target
        self.set_epoch(1)

    def set_epoch(self, epoch):
        """Draw the pairs of an epoch."""
        super().set_epoch(epoch)
        self.drawn = self.lists.draw(self.seed, epoch, self.temperature)

    def __len__(self):
        return len(self.drawn)

    def __getitem__(self, index):
        return {**self.dataset[int(self.drawn[index])], "id": index}

    def collater(self, samples, pad_to_length=None):
        return self.dataset.collater(samples, pad_to_length=pad_to_length)

    @property
    def sizes(self):
        """(sentences, 2) lengths of source and target."""
        return np.asarray(self.dataset.sizes)[self.drawn]

    def num_tokens(self, index):
        return self.dataset.num_tokens(self.drawn[index])

    def num_tokens_vec(self, indices):
        return self.dataset.num_tokens_vec(self.drawn[indices])

    def size(self, index):
        return self.dataset.size(self.drawn[index])

    def ordered_indices(self):
        """(sentences,) indices sorted by length, as LanguagePairDataset sorts its own."""
        order = np.random.permutation if self.dataset.shuffle else np.arange
        indices = order(len(self)).astype(np.int64)
        source_sizes, target_sizes = self.sizes.T
        indices = indices[np.argsort(target_sizes[indices], kind="mergesort")]
        return indices[np.argsort(source_sizes[indices], kind="mergesort")]

    def filter_indices_by_size(self, indices, max_sizes):
        source_sizes, target_sizes = self.sizes.T
        return data_utils.filter_paired_dataset_indices_by_size(
            source_sizes, target_sizes, indices, max_sizes
        )

    def batch_by_size(self, indices, **limits):
        # The wrapped data set would count the tokens of other pairs.
        return FairseqDataset.batch_by_size(self, indices, **limits)
