"""Checks that both sides of a binarised split have the same number of sentences."""

import os
import re
from collections import defaultdict

import numpy as np
from fairseq.data import data_utils

from fairseq_seqkd.io.line_counts import where_they_part


def check_sides(folder, split, combine=False):
    """Refuse a split whose source and target have different numbers of sentences.

    fairseq stops at it with a bare AssertionError.

    Args:
        folder: the data-bin; nothing is checked if it does not exist
        split: the split's name; with its pair, such as train.de-en, nothing else is checked
        combine: whether fairseq appends train1, train2, ... to train
    Raises:
        ValueError: names both numbers, the likely line and the remedy
    """
    for prefix, languages in _sides(folder, split, combine).items():
        paths = [os.path.join(folder, f"{prefix}.{lang}") for lang in languages]
        sizes = [_sizes(path) for path in paths]
        if len(sizes) == 2 and len(sizes[0]) != len(sizes[1]):
            counts = [f"{p}.idx has {len(n)} sentences" for p, n in zip(paths, sizes)]
            raise ValueError(
                f"{', '.join(counts)}: expected the same number.{where_they_part(*sizes)} A "
                "carriage return inside a line ends it for fairseq-preprocess: replace them in "
                "both texts (tr '\\r' ' ' < TEXT > NEW-TEXT), and binarise again."
            )


def _sizes(path):
    dataset = data_utils.load_indexed_dataset(path, None, None)
    return np.array(dataset.sizes)  # a copy: the data set's file may be mapped into memory


def _sides(folder, split, combine):
    """{prefix such as train.de-en: the languages of its files}."""
    pattern = re.compile(
        re.escape(split) + (r"\d*" if combine else "") + r"(\.[^.]+-[^.]+)?\.[^.]+\.idx"
    )
    found = defaultdict(list)
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if pattern.fullmatch(name):
            prefix, lang, _ = name.rsplit(".", 2)
            found[prefix].append(lang)
    return found
