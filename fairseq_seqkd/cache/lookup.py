"""Looks up the teacher's top-k distributions of a batch in a cache, by sentence id."""

import os

import numpy as np
import torch
from fairseq import utils

from fairseq_seqkd.cache.sentences import CachedSentences
from fairseq_seqkd.cache.store import DistributionCache, pairs_of
from fairseq_seqkd.cache.teacher_source import check_teacher_source
from fairseq_seqkd.chunked.manifest import differences
from fairseq_seqkd.losses.support import TopK
from fairseq_seqkd.models.checkpoints import sha256_of_checkpoints
from fairseq_seqkd.models.data_folders import (
    describe_dictionary,
    folder_of_each,
    split_checksums,
)


def open_cache_reader(cfg, task):
    """The `CacheReader` that a criterion's flags name.

    Args:
        cfg: with the attributes kd_cache, kd_top_k, kd_temperature, teacher_path,
            teacher_source, train_subset
        task: the student's task
    Raises:
        FileNotFoundError: there is no cache
        ValueError: a cache has another dictionary or other settings than expected, is
            unfinished or damaged, or has fewer than the top k; or there are more or fewer
            caches than data-bins
    """
    path, data = cfg.teacher_path, _data_of(task)
    folders = utils.split_paths(cfg.kd_cache)
    if data is not None:
        folders = folder_of_each(data, cfg.kd_cache, "--kd-cache")
    expected = {
        "dictionary": describe_dictionary(task.target_dictionary),
        "temperature": float(cfg.kd_temperature),
        "teacher": None if path is None else sha256_of_checkpoints(path),
        "data": {"split": cfg.train_subset},
    }
    stores = []
    for folder in folders:
        stores.append(_finished_cache(folder, expected))
        first = stores[0].manifest
        expected.update({name: first[name] for name in ("teacher", "top_k")})
    check_teacher_source(stores, data, cfg.teacher_source, path is not None)
    reader = CacheReader(stores, task)
    if (cfg.kd_top_k or 0) > reader.k:
        raise ValueError(
            f"--kd-top-k is {cfg.kd_top_k}, but the cache {cfg.kd_cache!r} has the top "
            f"{reader.k}: expected that or less, or another cache."
        )
    return reader


def _data_of(task):
    """fairseq's ``data`` argument of a task, or None."""
    return getattr(getattr(task, "cfg", None), "data", None)


def _finished_cache(root, expected):
    """The `DistributionCache` in a folder; raises as `open_cache_reader`."""
    store = DistributionCache(root)
    if not store.exists:
        raise FileNotFoundError(
            f"--kd-cache: there is no cache at {root!r}. Make it with fairseq-seqkd cache "
            f"DATA --teacher-path CHECKPOINT --kd-cache {root}"
        )
    store.check(expected)
    missing = store.chunks.missing(store.n_chunks(store.n_scored))
    if missing:
        raise ValueError(
            f"--kd-cache: the cache {root!r} is not finished: {len(missing)} chunks are "
            f"missing, the first is number {missing[0]}. Run fairseq-seqkd cache again with "
            "the same flags: it makes what is missing."
        )
    return store


class CacheReader:
    """Finished caches, opened for a training: one for each of its data-bins.

    fairseq trains on one data-bin an epoch. Which cache is of that one follows from the hashes
    of a batch's sentences.

    Args:
        stores: `DistributionCache` objects of the same teacher and top k
        task: the student's task
    Raises:
        ValueError: the first one is damaged
    """

    def __init__(self, stores, task):
        self.stores = stores
        self.task = task
        self.k = stores[0].manifest["top_k"]
        self._sentences = self._open(0)

    def _open(self, index):
        """The `CachedSentences` of a cache."""
        return CachedSentences(self.stores[index])

    def look_up(self, sample, positions, pad):
        """The teacher's `TopK` at the target positions of a batch.

        Args:
            sample: a batch as fairseq collates it
            positions: its `TargetPositions`
            pad: the padding symbol
        Returns:
            the `TopK` of these positions, and a (positions,) teacher mask: True where the
            cache has rows, False in sentences that are too long for the teacher
        Raises:
            ValueError: a sentence is not in the cache, or the cache has another source or
                target for it
        """
        pairs, device = list(pairs_of(sample, pad)), sample["target"].device
        self._turn_to_cache_of(pairs)
        sentences = [self._rows_of(*pair) for pair in pairs]
        has_rows = torch.tensor([len(rows) > 0 for rows in sentences], device=device)
        teacher_mask = has_rows[positions.rows]
        known, rows = teacher_mask.nonzero().squeeze(-1), np.concatenate(sentences)

        # Positions without rows get any k different symbols, which the mask excludes.
        symbols = torch.arange(self.k, device=device).repeat(len(positions), 1)
        lprobs = torch.zeros_like(symbols, dtype=torch.float32)
        top = TopK(symbols, lprobs, lprobs[:, 0].clone())
        for name, tensor in top._asdict().items():
            values = torch.from_numpy(rows[name].astype(np.float64))
            tensor.index_copy_(0, known, values.to(tensor))
        return top, teacher_mask

    def _turn_to_cache_of(self, pairs):
        """Open the cache that has all sentences of a batch, if it is not the open one."""
        if len(self.stores) == 1 or self._has_all(self._sentences, pairs):
            return
        if any(self._is_of_another_split(id_, target) for id_, _, target in pairs):
            return
        current = self.stores.index(self._sentences.store)
        for step in range(1, len(self.stores)):
            candidate = self._open((current + step) % len(self.stores))
            if self._has_all(candidate, pairs):
                self._sentences = candidate
                return

    @staticmethod
    def _has_all(sentences, pairs):
        return all(sentences.mismatch(*pair) is None for pair in pairs)

    def _rows_of(self, id_, source, target):
        mismatch = self._sentences.mismatch(id_, source, target)
        if mismatch is None:
            return self._sentences.rows_of(id_)
        if not self._is_of_another_split(id_, target):
            raise self._other_data(mismatch)
        return self._sentences.no_rows()

    def _is_of_another_split(self, id_, target):
        """Whether the sentence is in another loaded split, such as the validation set.

        Of several data-parallel processes one may run out of batches before the others.
        fairseq then repeats the first batch of the last validation, and ignores the result.
        """
        for split, dataset in self.task.datasets.items():
            if split != self.stores[0].manifest["data"]["split"] and id_ < len(dataset):
                if np.array_equal(dataset[id_]["target"].numpy(), target):
                    return True
        return False

    def _other_data(self, mismatch):
        """The error for a sentence that is not the cache's; lists the files that differ."""
        store = self._sentences.store
        data, folders = store.manifest["data"], utils.split_paths(_data_of(self.task) or "")
        folder = folders[self.stores.index(store) % len(folders)]
        lines = []
        if os.path.isdir(folder):
            prefix = data.get("prefix", data["split"])
            found = split_checksums(folder, prefix, self.task)
            lines = differences({"sha256": found}, {"sha256": data["sha256"]})
        if not lines and getattr(self.task, "targets", "gold") != "gold":
            lines = [f"the training is on {self.task.targets!r} targets of a store"]
        differing = "".join(f"\n  {line}" for line in lines)
        others = " (nor is any other of --kd-cache)" if len(self.stores) > 1 else ""
        return ValueError(
            f"--kd-cache: the cache {store.root!r} is of other sentences than this "
            f"training{others}: {mismatch}. It was made from the split {data['split']!r} with "
            f"{data['sentences']} sentences.{differing}\nMake one from the data-bin that "
            "is trained on; with pseudo-targets that is a folder of their store, such as best."
        )
