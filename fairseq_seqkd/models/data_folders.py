"""Data-bins as folders: several of them, and what identifies splits and dictionaries."""

import hashlib
import os
import shutil

from fairseq import utils
from fairseq.data import Dictionary

from fairseq_seqkd.models.datasets import data_sha256


def single_folder(data, name):
    """The data-bin that fairseq's ``data`` argument names, if there is just one.

    Raises:
        ValueError: several data-bins, or see `shard_folders`
    """
    folders = shard_folders(data, name)
    if len(folders) > 1:
        raise ValueError(
            f"data is {data!r}: expected one data-bin here, found {len(folders)} separated by "
            "colons. Run this once for each, with a store for each: fairseq-seqkd generate and "
            "fairseq-train take --pseudo-targets STORE1:STORE2 for DATA1:DATA2."
        )
    return folders[0]


def shard_folders(data, name):
    """The data-bins that fairseq's ``data`` argument names; it trains on one an epoch, in turn.

    Raises:
        ValueError: a second file of the split in one of them, in which the position of a
            sentence would not identify it
    """
    folders = utils.split_paths(data)
    for folder in folders:
        if split_files(folder, name + "1"):
            raise ValueError(
                f"{folder!r} has {name}1 files, which fairseq appends to {name}: expected "
                f"{name} alone, in which the number of a sentence identifies it. Binarise them "
                "as one split (repeat lines in place of --upsample-primary)."
            )
    return folders


def folder_of_each(data, folders, flag):
    """Pair the data-bins in ``DATA1:DATA2`` with the folders that a flag names.

    Args:
        data: fairseq's ``data`` argument
        folders: the flag's value, folders separated by colons
        flag: its name
    Returns:
        the folders, one for each data-bin, in the same order
    Raises:
        ValueError: there are more or fewer of them; gives both numbers
    """
    n_data, names = len(utils.split_paths(data)), utils.split_paths(folders)
    if len(names) != n_data:
        raise ValueError(
            f"{flag} {folders!r}: found {len(names)}, expected {n_data}: one folder for each "
            f"data-bin in {data!r}, in the same order, separated by colons"
        )
    return names


def check_dictionaries(folder, first):
    """Refuse a data-bin whose dictionaries are not those of the first, which fairseq reads.

    Args:
        folder: the data-bin
        first: the first of those in ``DATA1:DATA2``
    Raises:
        ValueError: names the dictionary that differs
    """
    if folder == first:
        return
    for name in split_files(folder, "dict"):
        paths = [os.path.join(one, name) for one in (folder, first)]
        if os.path.exists(paths[1]):
            symbols = [Dictionary.load(path).symbols for path in paths]
            if symbols[0] != symbols[1]:
                raise ValueError(
                    f"{paths[0]!r} ({len(symbols[0])} symbols) is not {paths[1]!r} "
                    f"({len(symbols[1])} symbols), which fairseq uses for all data-bins: "
                    "binarise with the first one's dictionaries (fairseq-preprocess --srcdict, "
                    "--tgtdict)"
                )


def split_files(folder, split):
    """The names of a split's files."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if name.startswith(split + "."))


def copy_other_splits(source, folder, split):
    """Copy a data-bin's dictionaries and all its splits but one.

    Args:
        source, folder: the data-bin, and the new one
        split: the one to leave out, with what fairseq appends to it (train1, train2, ...)
    """
    for name in sorted(os.listdir(source)):
        is_other = not name.startswith(split) and name.endswith((".bin", ".idx"))
        if name.startswith("dict.") or is_other:
            shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))


def check_split(folder, split):
    """Raise a FileNotFoundError if there are no files of a split."""
    if not split_files(folder, split):
        raise FileNotFoundError(
            f"{folder!r} has no split {split!r} (no file whose name begins with "
            f"{split + '.'!r}): expected a data-bin that fairseq-preprocess wrote"
        )


def pair_prefix(folder, split, source_lang, target_lang):
    """The prefix of the file names of a split of pairs, or of sources, such as ``train.de-en``.

    Raises:
        FileNotFoundError: the folder has no binarised split of that name
    """
    for pair in (
        f"{source_lang}-{target_lang}",
        f"{target_lang}-{source_lang}",
        f"{source_lang}-None",
    ):
        prefix = f"{split}.{pair}"
        if os.path.exists(os.path.join(folder, f"{prefix}.{source_lang}.idx")):
            return prefix
    raise FileNotFoundError(
        f"{folder!r} has no binarised {split!r} split "
        f"({split}.{source_lang}-{target_lang}.*.idx): expected data from fairseq-preprocess "
        "without --dataset-impl raw"
    )


def split_checksums(folder, split, task):
    """{file name: SHA-256} of a split: its .bin files, or all files if it is raw text.

    Args:
        folder: the data-bin
        split: the split's name
        task: its fairseq task
    """
    names = split_files(folder, split)
    names = [name for name in names if name.endswith(".bin")] or names
    return {
        name: data_sha256(os.path.join(folder, name), _vocab_of(name, task)) for name in names
    }


def _vocab_of(name, task):
    """The size of the dictionary of a data file; None for alignments."""
    if ".align." in name:
        return None
    source_lang = getattr(getattr(task, "cfg", None), "source_lang", None)
    is_source = name.endswith(f".{source_lang}.bin")
    return len(task.source_dictionary if is_source else task.target_dictionary)


def describe_dictionary(dictionary):
    """The manifest's entry for a dictionary: its size and the SHA-256 of its symbols."""
    symbols = "\n".join(dictionary.symbols).encode()
    return {"symbols": len(dictionary), "sha256": hashlib.sha256(symbols).hexdigest()}
