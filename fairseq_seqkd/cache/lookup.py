"""Looks up the teacher's distributions for a batch in a cache, by the sentences' ids."""

import os

import numpy as np
import torch

from fairseq_seqkd.cache.store import DistributionCache, hash_of, pairs_of
from fairseq_seqkd.chunked.manifest import differences
from fairseq_seqkd.databin import describe_dictionary, sums_of
from fairseq_seqkd.losses.support import TopK


class CachedRows:
    """A finished cache, opened for a training.

    Args:
        root: its folder
        task: the student's task
        expected: what the manifest has to say, as for
            `ChunkedStore.check`
    Raises:
        FileNotFoundError: there is no cache
        ValueError: it is of another dictionary, not finished, damaged, or otherwise than
            expected
    """

    def __init__(self, root, task, expected):
        self.store = DistributionCache(root)
        if not self.store.exists:
            raise FileNotFoundError(
                f"--kd-cache: there is no cache at {root!r}. Make it with fairseq-seqkd cache "
                f"DATA --teacher-path CHECKPOINT --kd-cache {root}"
            )
        dictionary = describe_dictionary(task.target_dictionary)
        self.store.check({"dictionary": dictionary, **expected})
        self.task = task
        self.manifest = self.store.manifest
        self.k = self.manifest["top_k"]
        self._open()

    def _open(self):
        sentences = self.manifest["data"]["sentences"]
        found = self.store.chunks.find()
        missing = self.store.chunks.missing(self.store.n_chunks(sentences))
        if missing:
            raise ValueError(
                f"--kd-cache: the cache {self.store.root!r} is not finished: {len(missing)} "
                f"chunks are missing, the first is number {missing[0]}. Run fairseq-seqkd "
                "cache again with the same flags: it makes what is missing."
            )
        self._rows = []
        self._chunk, self._begin = np.zeros(sentences, np.int32), np.zeros(sentences, np.int64)
        self._length, self._hash = (np.zeros(sentences, np.uint32) for _ in range(2))
        for _, path in sorted(found.items()):
            lines, rows = self.store.read_chunk(path)
            ids = lines["id"]
            self._chunk[ids] = len(self._rows)
            self._begin[ids] = np.cumsum(lines["length"]) - lines["length"]
            self._length[ids], self._hash[ids] = lines["length"], lines["hash"]
            self._rows.append(rows)

    def top_k(self, sample, pad):
        """The teacher's `TopK` for a batch.

        Args:
            sample: as fairseq collates it
            pad: the padding symbol
        Returns:
            the TopK of all batch * length positions; and (batch, length) True where the cache
            has rows: not at padding, nor in a sentence that is too long for the teacher
        Raises:
            ValueError: a sentence is not in the cache, or has another source or target there
        """
        target = sample["target"]
        sentences = [self._rows_of(*pair) for pair in pairs_of(sample, pad)]
        has_rows = torch.tensor([len(rows) > 0 for rows in sentences], device=target.device)
        teacher_mask = target.ne(pad) & has_rows.unsqueeze(-1)
        positions = teacher_mask.flatten().nonzero().squeeze(-1)
        rows = np.concatenate(sentences)

        # Elsewhere any k symbols will do, if they are different ones.
        symbols = torch.arange(self.k, device=target.device).repeat(target.numel(), 1)
        lprobs = torch.zeros_like(symbols, dtype=torch.float32)
        top = TopK(symbols, lprobs, lprobs[:, 0].clone())
        for name, tensor in top._asdict().items():
            values = torch.from_numpy(rows[name].astype(np.float64))
            tensor.index_copy_(0, positions, values.to(tensor))
        return top, teacher_mask

    def _rows_of(self, id_, source, tokens):
        found = None
        if id_ >= len(self._length):
            found = (
                f"sentence {id_} is not in it: it has those from 0 to {len(self._length) - 1}"
            )
        elif self._length[id_] and self._hash[id_] != hash_of(source, tokens):
            found = (
                f"sentence {id_} has {len(source)} source and {len(tokens)} target tokens in "
                f"this batch, and another source, or {self._length[id_]} other target tokens, "
                "in it"
            )
        if found is None:
            begin, length = int(self._begin[id_]), int(self._length[id_])
            return self._rows[self._chunk[id_]][begin : begin + length]
        if not self._is_of_another_split(id_, tokens):
            raise self._other_data(found)
        return self._rows[0][:0]

    def _is_of_another_split(self, id_, tokens):
        """Whether this is a sentence of the validation set.

        Of several processes one may run out of batches before the others. fairseq lets it
        repeat the last validation's first batch then, and throws the result away.
        """
        for split, dataset in self.task.datasets.items():
            if split != self.manifest["data"]["split"] and id_ < len(dataset):
                target = dataset[id_]["target"].numpy()
                if len(target) == len(tokens) and (target == tokens).all():
                    return True
        return False

    def _other_data(self, found):
        """The error for targets that are not those of the cache, with what differs."""
        data = self.manifest["data"]
        lines = []
        folder = getattr(getattr(self.task, "cfg", None), "data", None)
        if folder and os.path.isdir(folder):
            here = {"sha256": sums_of(folder, data["split"])}
            lines = differences(here, {"sha256": data["sha256"]})
        if not lines and getattr(self.task, "targets", "gold") != "gold":
            lines = [f"the training is on {self.task.targets!r} targets of a store"]
        differing = "".join(f"\n  {line}" for line in lines)
        return ValueError(
            f"--kd-cache: the cache {self.store.root!r} is of other sentences than this "
            f"training: {found}. It was made of the split {data['split']!r} with "
            f"{data['sentences']} sentences.{differing}\nMake one of the data-bin that is "
            "trained on; with pseudo-targets that is a folder of their store, such as best."
        )
