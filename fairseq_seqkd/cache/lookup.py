"""Looks up the teacher's top-k distributions of a batch in a cache, by sentence id."""

import os

import numpy as np
import torch

from fairseq_seqkd.cache.store import DistributionCache, hash_of, pairs_of
from fairseq_seqkd.chunked.manifest import differences
from fairseq_seqkd.databin import describe_dictionary, split_checksums
from fairseq_seqkd.losses.support import TopK
from fairseq_seqkd.models.checkpoints import sha256_of_checkpoints


def open_cache_reader(cfg, task):
    """The `CacheReader` that a criterion's flags name.

    Args:
        cfg: with the attributes kd_cache, kd_top_k, kd_temperature, teacher_path, train_subset
        task: the student's task
    Raises:
        FileNotFoundError, ValueError: as for `CacheReader`; or it has fewer than the top k
    """
    path = cfg.teacher_path
    expected = {
        "temperature": float(cfg.kd_temperature),
        "teacher": None if path is None else sha256_of_checkpoints(path),
        "data": {"split": cfg.train_subset},
    }
    cache = CacheReader(cfg.kd_cache, task, expected)
    if (cfg.kd_top_k or 0) > cache.k:
        raise ValueError(
            f"--kd-top-k is {cfg.kd_top_k}, but the cache {cfg.kd_cache!r} has the top "
            f"{cache.k}: expected that or less, or another cache."
        )
    return cache


class CacheReader:
    """A finished cache, opened for a training.

    Args:
        root: the cache's folder
        task: the student's task
        expected: entries of the manifest, as for `ChunkedStore.check`
    Raises:
        FileNotFoundError: there is no cache
        ValueError: the cache has another dictionary or other settings than expected, or it
            is unfinished or damaged
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
        paths = self.store.chunks.find()
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
        for _, path in sorted(paths.items()):
            entries, rows = self.store.read_chunk(path)
            ids, lengths = entries["id"], entries["length"]
            self._chunk[ids] = len(self._rows)
            self._begin[ids] = np.cumsum(lengths) - lengths
            self._length[ids], self._hash[ids] = lengths, entries["hash"]
            self._rows.append(rows)

    def look_up(self, sample, pad):
        """The teacher's `TopK` at all positions of a batch.

        Args:
            sample: a batch as fairseq collates it
            pad: the padding symbol
        Returns:
            the `TopK` of all batch * length positions, and a (batch, length) teacher mask:
            True where the cache has rows, False at padding and in sentences that are too
            long for the teacher
        Raises:
            ValueError: a sentence is not in the cache, or the cache has another source or
                target for it
        """
        target = sample["target"]
        sentences = [self._rows_of(*pair) for pair in pairs_of(sample, pad)]
        has_rows = torch.tensor([len(rows) > 0 for rows in sentences], device=target.device)
        teacher_mask = target.ne(pad) & has_rows.unsqueeze(-1)
        positions = teacher_mask.flatten().nonzero().squeeze(-1)
        rows = np.concatenate(sentences)

        # Positions without rows get any k different symbols, which the mask excludes.
        symbols = torch.arange(self.k, device=target.device).repeat(target.numel(), 1)
        lprobs = torch.zeros_like(symbols, dtype=torch.float32)
        top = TopK(symbols, lprobs, lprobs[:, 0].clone())
        for name, tensor in top._asdict().items():
            values = torch.from_numpy(rows[name].astype(np.float64))
            tensor.index_copy_(0, positions, values.to(tensor))
        return top, teacher_mask

    def _rows_of(self, id_, source, target):
        mismatch = self._mismatch(id_, source, target)
        if mismatch is None:
            begin, length = int(self._begin[id_]), int(self._length[id_])
            return self._rows[self._chunk[id_]][begin : begin + length]
        if not self._is_of_another_split(id_, target):
            raise self._other_data(mismatch)
        return self._rows[0][:0]

    def _mismatch(self, id_, source, target):
        """The difference between a sentence and the cache's of that id, in words, or None."""
        if id_ >= len(self._length):
            return (
                f"sentence {id_} is not in it: it has those from 0 to {len(self._length) - 1}"
            )
        if self._length[id_] and self._hash[id_] != hash_of(source, target):
            return (
                f"sentence {id_} has {len(source)} source and {len(target)} target tokens in "
                f"this batch, and another source, or {self._length[id_]} other target tokens, "
                "in the cache"
            )
        return None

    def _is_of_another_split(self, id_, target):
        """Whether the sentence is in another loaded split, such as the validation set.

        Of several data-parallel processes one may run out of batches before the others.
        fairseq then repeats the first batch of the last validation, and ignores the result.
        """
        for split, dataset in self.task.datasets.items():
            if split != self.manifest["data"]["split"] and id_ < len(dataset):
                if np.array_equal(dataset[id_]["target"].numpy(), target):
                    return True
        return False

    def _other_data(self, mismatch):
        """The error for a sentence that is not the cache's; lists the files that differ."""
        data = self.manifest["data"]
        lines = []
        folder = getattr(getattr(self.task, "cfg", None), "data", None)
        if folder and os.path.isdir(folder):
            prefix = data.get("prefix", data["split"])
            trained_on = {"sha256": split_checksums(folder, prefix)}
            lines = differences(trained_on, {"sha256": data["sha256"]})
        if not lines and getattr(self.task, "targets", "gold") != "gold":
            lines = [f"the training is on {self.task.targets!r} targets of a store"]
        differing = "".join(f"\n  {line}" for line in lines)
        return ValueError(
            f"--kd-cache: the cache {self.store.root!r} is of other sentences than this "
            f"training: {mismatch}. It was made from the split {data['split']!r} with "
            f"{data['sentences']} sentences.{differing}\nMake one from the data-bin that "
            "is trained on; with pseudo-targets that is a folder of their store, such as best."
        )
