"""The n-best lists of a data-bin with all hypotheses, memory-mapped, and draws from them."""

import os

import numpy as np

# Files of such a data-bin: the sentence of each pair, and its total log-probability in nats.
IDS, LPROBS = "list-ids.npy", "list-lprobs.npy"
_PURPOSE = 1 << 32  # keeps these draws apart from those of SentenceStreams
_BLOCK = 1 << 16  # sentences that are drawn at once


class HypothesisLists:
    """The lists of a data-bin, whose pairs stand in the order of the split.

    Args:
        databin: its folder, of the selector ``sampled``
    """

    def __init__(self, databin):
        ids, self.lprobs = (
            np.load(os.path.join(databin, name), mmap_mode="r", allow_pickle=False)
            for name in (IDS, LPROBS)
        )
        starts = np.flatnonzero(np.diff(ids, prepend=-1))
        self.ids = np.asarray(ids[starts])  # (sentences,) of those that have a pair
        self.begins = np.append(starts, len(ids))

    def __len__(self):
        return len(self.ids)

    def draw(self, seed, epoch, temperature):
        """Draw a pair of each sentence with probability proportional to exp(lprob / T).

        Args:
            seed, epoch: of the draw, which is a function of these and of the sentence's id
            temperature: T; above 1 is closer to uniform
        Returns:
            (sentences,) positions of pairs in the data-bin
        """
        uniform = uniform_of(self.ids, seed, epoch)
        blocks = range(0, len(self), _BLOCK)
        drawn = [self._draw(slice(i, i + _BLOCK), uniform, temperature) for i in blocks]
        return np.concatenate(drawn) if drawn else np.zeros(0, np.int64)

    def _draw(self, block, uniform, temperature):
        begins = self.begins[block.start : block.stop + 1]
        first, sizes = begins[0], np.diff(begins)
        lprobs = self.lprobs[first : begins[-1]].astype(np.float64)
        best = np.maximum.reduceat(lprobs, begins[:-1] - first)
        mass = np.cumsum(np.exp((lprobs - np.repeat(best, sizes)) / temperature))
        ends = mass[begins[1:] - first - 1]
        starts = np.append(0.0, ends[:-1])
        point = starts + uniform[block] * (ends - starts)
        drawn = first + np.searchsorted(mass, point, side="right")
        return np.clip(drawn, begins[:-1], begins[1:] - 1)  # rounding at the very ends


def uniform_of(ids, seed, epoch):
    """(ids,) numbers from 0 to below 1, each a function of seed, epoch and sentence id.

    They are those numbers of one Philox stream, a counter-based hash (Salmon et al. 2011).

    Args:
        ids: (n,) sentence ids, ascending
        seed, epoch: name the stream
    """
    if not len(ids):
        return np.zeros(0)
    stream = np.random.Philox(counter=[0, 0, 0, _PURPOSE], key=[seed % 2**64, epoch])
    raw = stream.random_raw(int(ids[-1]) + 1)[ids]
    return (raw >> np.uint64(11)) * 2.0**-53


def list_arrays(selected, rows, target_mask):
    """The arrays that such a data-bin keeps beside its pairs, by file name.

    Args:
        selected: `SelectedHypotheses`
        rows: (pairs,) the rows of its pairs
        target_mask: (rows,) True where the pair's target is a hypothesis; a gold target stands
            alone, and its log-probability is not needed
    """
    lengths = np.maximum(selected.target_lengths[rows], 1).astype(np.float64)
    lprobs = selected.scores[rows].astype(np.float64) * lengths**selected.lenpen
    lprobs = np.where(target_mask[rows], lprobs, 0).astype(np.float32)
    return {IDS: (rows // selected.keep).astype(np.int64), LPROBS: lprobs}
