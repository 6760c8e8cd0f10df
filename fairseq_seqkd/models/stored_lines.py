"""Lines of text on disk, of which any can be read, in any process.

``lines.bin`` is the plain text, and ``lines.idx`` says where each line begins: fairseq's format
mmap, with bytes in place of tokens.
"""

import contextlib
import os

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset

from fairseq_seqkd.models.datasets import writing_mmap

_NAME = "lines"


@contextlib.contextmanager
def storing_lines(folder):
    """A context with a function that adds a line to new files in a folder."""
    with writing_mmap(os.path.join(folder, _NAME), np.uint8) as add:
        yield lambda line: add(np.frombuffer(f"{line}\n".encode(), np.uint8))


class StoredLines:
    """The lines in a folder, by their position."""

    def __init__(self, folder):
        self._lines = MMapIndexedDataset(os.path.join(folder, _NAME))

    def __len__(self):
        return len(self._lines)

    def __getitem__(self, index):
        content = self._lines[int(index)].numpy().astype(np.uint8).tobytes()
        return content.decode()[:-1]
