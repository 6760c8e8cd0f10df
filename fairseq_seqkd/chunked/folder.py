"""A folder of numbered chunk files, whose names carry their checksums."""

import contextlib
import glob
import hashlib
import os
import re

from fairseq_seqkd.io.files import atomic_file, sha256

_NAME = re.compile(r"chunk-(\d{5,})-([0-9a-f]{16})\.\w+")


class ChunkFolder:
    """Numbered files named ``chunk-INDEX-SHA256.SUFFIX``, with 16 digits of the SHA-256.

    One rename commits content and checksum together, and a damaged file no longer matches
    its own name.

    Args:
        path: the folder
        suffix: the suffix of the files, such as ``npz``
    """

    def __init__(self, path, suffix):
        self.path = path
        self.suffix = suffix

    def find(self):
        """{index: path} of all chunks in the folder."""
        paths = {}
        if os.path.isdir(self.path):
            for name in sorted(os.listdir(self.path)):
                match = _NAME.fullmatch(name)
                if match and name.endswith("." + self.suffix):
                    paths.setdefault(int(match[1]), os.path.join(self.path, name))
        return paths

    def missing(self, n_chunks):
        """The indices, in order, of the chunks that the folder lacks."""
        present = self.find()
        return [index for index in range(n_chunks) if index not in present]

    def write(self, index, content):
        """Write a chunk atomically.

        Args:
            index: the chunk's number
            content: bytes
        """
        digest = hashlib.sha256(content).hexdigest()[:16]
        name = f"chunk-{index:05d}-{digest}.{self.suffix}"
        # A finished store is swept as a whole.
        with atomic_file(os.path.join(self.path, name), sweep=False) as file:
            file.write(content)
        self._remove_other_versions(index)

    def _remove_other_versions(self, index):
        # Another kind of processor may have computed the same chunk with other last bits.
        kept = self.find()[index]
        for path in glob.glob(os.path.join(glob.escape(self.path), f"chunk-{index:05d}-*")):
            if path != kept:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def remove_damaged(self, indices):
        """Remove the chunks whose content does not match the checksum in their name.

        Args:
            indices: the chunks to check
        Returns:
            the removed paths
        """
        present = self.find()
        removed = []
        for path in (present[index] for index in indices if index in present):
            # Another process may remove it at the same time.
            with contextlib.suppress(FileNotFoundError):
                if is_damaged(path):
                    os.unlink(path)
                    removed.append(path)
        return removed


def is_damaged(path):
    """Whether a chunk's content does not match the checksum in its name."""
    return sha256(path)[:16] != _NAME.fullmatch(os.path.basename(path))[2]
