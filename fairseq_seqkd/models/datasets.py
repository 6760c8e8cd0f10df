"""Access to fairseq's data sets: any sentence, in any order and process, in every format.

``fairseq-preprocess --dataset-impl cached`` and ``lazy`` write fairseq's older format. Of its
readers the first needs ``prefetch``, and the second moves one file position, which processes
that were forked would share. `random_access` puts another in their place.
"""

import contextlib
import copy
import hashlib
import os
import struct
import tempfile

import numpy as np
import torch
from fairseq.data import indexed_dataset
from fairseq.data.indexed_dataset import IndexedDataset, MMapIndexedDataset

from fairseq_seqkd.io.files import sha256

_TOKENS_AT_ONCE = 1 << 20


class RandomAccessDataset(IndexedDataset):
    """Reads any sentence of fairseq's older format, without a position in the file."""

    def __getitem__(self, index):
        """(length,) token ids of a sentence.

        Raises:
            ValueError: the file is cut short
        """
        if not self.data_file:
            self.read_data(self.path)
        self.check_index(index)
        begin, end = (int(self.data_offsets[i]) * self.element_size for i in (index, index + 1))
        raw = os.pread(self.data_file.fileno(), end - begin, begin)
        if len(raw) != end - begin:
            raise ValueError(
                f"{self.path + '.bin'!r} is cut short: sentence {index} ends at byte {end}. "
                "Run fairseq-preprocess again."
            )
        tokens = np.frombuffer(raw, self.dtype).astype(np.int64)
        return torch.from_numpy(tokens - int(self.fix_lua_indexing))

    def __getstate__(self):
        return {**vars(self), "data_file": None}  # the process that unpickles it opens its own


def random_access(dataset):
    """Let all sentences of a data set be read in any order, without ``prefetch``.

    Args:
        dataset: any of fairseq's; those of the older format in it are replaced
    Returns:
        the data set
    """
    if isinstance(dataset, IndexedDataset):
        return RandomAccessDataset(dataset.path, dataset.fix_lua_indexing)
    for name in ("src", "tgt", "align_dataset", "dataset"):
        inner = getattr(dataset, name, None)
        if isinstance(inner, torch.utils.data.Dataset):
            setattr(dataset, name, random_access(inner))
    inner = getattr(dataset, "datasets", None)
    if isinstance(inner, list):
        dataset.datasets = [random_access(one) for one in inner]
    elif isinstance(inner, dict):
        inner.update({key: random_access(one) for key, one in inner.items()})
    return dataset


def joins_at_random(dataset):
    """Whether a data set joins utterances at random (fairseq's ConcatAugment, for speech)."""
    transforms = getattr(getattr(dataset, "dataset_transforms", None), "transforms", None)
    return "ConcatAugment" in [type(transform).__name__ for transform in transforms or ()]


def concatenate_sources(datasets):
    """The sources of several data sets as one, without targets.

    Args:
        datasets: LanguagePairDatasets with the same dictionaries
    Returns:
        a LanguagePairDataset; of a single data set itself
    """
    first, *others = datasets
    if not others:
        return first
    joined = copy.copy(first)
    joined.src = [dataset.src[i] for dataset in datasets for i in range(len(dataset))]
    joined.src_sizes = joined.sizes = np.concatenate([one.src_sizes for one in datasets])
    joined.tgt = joined.tgt_sizes = None
    return joined


def is_older_format(prefix):
    """Whether the files ``prefix.idx`` and ``prefix.bin`` are of fairseq's older format."""
    return indexed_dataset.infer_dataset_impl(prefix) == "cached"


def data_sha256(path, vocab=None):
    """The SHA-256 of the token ids in a file of a split, whichever format it has.

    Args:
        path: a ``.bin`` file, or one of raw text
        vocab: the size of the dictionary; None for alignments
    Returns:
        the file's own SHA-256; of the older format that of the same sentences as mmap
    """
    prefix, suffix = os.path.splitext(path)
    if suffix != ".bin" or not is_older_format(prefix):
        return sha256(path)
    dtype = indexed_dataset.best_fitting_int_dtype(vocab)
    stored, digest = IndexedDataset(prefix).dtype, hashlib.sha256()
    with open(path, "rb") as file:
        block = np.fromfile(file, stored, _TOKENS_AT_ONCE)
        while len(block):
            digest.update((block - 1).astype(dtype).tobytes())
            block = np.fromfile(file, stored, _TOKENS_AT_ONCE)
    return digest.hexdigest()


def write_mmap(prefix, sentences, vocab=None):
    """Write sentences in the format mmap; see `writing_mmap`.

    Args:
        prefix: of the two files
        sentences: an iterable of (length,) token ids, arrays or tensors
        vocab: as for `data_sha256`
    """
    with writing_mmap(prefix, indexed_dataset.best_fitting_int_dtype(vocab)) as add:
        for tokens in sentences:
            add(tokens)


@contextlib.contextmanager
def writing_mmap(prefix, dtype):
    """A context with a function that adds a sentence to new files in the format mmap.

    Memory holds 12 bytes a sentence when the context ends, and nothing before.

    Args:
        prefix: of the two files
        dtype: numpy's type of a token
    """
    with tempfile.TemporaryFile(dir=os.path.dirname(os.path.abspath(prefix))) as spool:
        with open(indexed_dataset.data_file_path(prefix), "wb") as file:

            def add(tokens):
                file.write(np.asarray(tokens).astype(dtype).tobytes())
                spool.write(struct.pack("=i", len(tokens)))

            yield add
        spool.seek(0)
        lengths = np.fromfile(spool, np.int32)
    begins = np.zeros(len(lengths), np.int64)
    begins[1:] = lengths[:-1]
    np.cumsum(begins, out=begins)  # with another type it would copy the lengths
    write_index(prefix, dtype, lengths, begins)


def write_index(prefix, dtype, lengths, begins):
    """Write the index of a data set in the format mmap.

    Args:
        prefix: of its files
        dtype: numpy's type of a token
        lengths: (entries,) int32, in tokens
        begins: (entries,) int64, where each begins in the other file, in tokens; is changed
    """
    begins *= dtype().itemsize
    path = indexed_dataset.index_file_path(prefix)
    with MMapIndexedDataset.Index.writer(path, dtype) as writer:
        # Its method ``write`` makes lists of Python's numbers.
        writer._file.write(struct.pack("<Q", len(lengths)))
        writer._file.write(lengths.data)
        writer._file.write(begins.data)


def write_entries(prefix, sentences, sizes, entries, vocab=None):
    """Write sentences once in the format mmap, with an index that may repeat them.

    Args:
        prefix: of the two files
        sentences: an iterable of (length,) token ids
        sizes: (sentences,) their lengths
        entries: (entries,) positions of sentences, for each entry of the index
        vocab: as for `data_sha256`
    """
    write_mmap(prefix, sentences, vocab)
    dtype = indexed_dataset.best_fitting_int_dtype(vocab)
    sizes = np.asarray(sizes, dtype=np.int32)
    begins = np.cumsum(sizes, dtype=np.int64) - sizes
    write_index(prefix, dtype, sizes[entries], begins[entries])


def copy_as_mmap(old_prefix, new_prefix, vocab=None):
    """Write a copy of files of the older format in the format mmap.

    Args:
        old_prefix, new_prefix: of the two files, and of the two new ones
        vocab: as for `data_sha256`
    """
    old = RandomAccessDataset(old_prefix, fix_lua_indexing=True)
    write_mmap(new_prefix, (old[index] for index in range(len(old))), vocab)
