"""A folder of numbered chunks, each of them whole and unharmed, or not there."""

import contextlib
import glob
import hashlib
import os
import re

from fairseq_seqkd.io.files import atomic_file, sha256

_NAME = re.compile(r"chunk-(\d{5,})-([0-9a-f]{16})\.\w+")


class ChunkFolder:
    """Numbered files that carry the beginning of their own SHA-256 in their name.

    So one rename commits content and checksum together, and a chunk that was harmed
    afterwards is told from a whole one by its name alone.

    Args:
        path: the folder
        suffix: of the files, such as ``npz``
    """

    def __init__(self, path, suffix):
        self.path = path
        self.suffix = suffix

    def find(self):
        """{index: path} of every chunk that is there."""
        found = {}
        if os.path.isdir(self.path):
            for name in sorted(os.listdir(self.path)):
                match = _NAME.fullmatch(name)
                if match and name.endswith("." + self.suffix):
                    found.setdefault(int(match[1]), os.path.join(self.path, name))
        return found

    def missing(self, n_chunks):
        """The indices, in order, of the chunks that are not there."""
        found = self.find()
        return [index for index in range(n_chunks) if index not in found]

    def write(self, index, content):
        """Write a chunk; it is there whole or not at all.

        Args:
            index: its number
            content: bytes
        """
        digest = hashlib.sha256(content).hexdigest()[:16]
        name = f"chunk-{index:05d}-{digest}.{self.suffix}"
        with atomic_file(os.path.join(self.path, name)) as file:
            file.write(content)
        self._keep_one(index)

    def _keep_one(self, index):
        """Another kind of processor may have made the same chunk with other last bits."""
        kept = self.find()[index]
        for path in glob.glob(os.path.join(glob.escape(self.path), f"chunk-{index:05d}-*")):
            if path != kept:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def remove_damaged(self, indices):
        """Remove every chunk whose content is not what its name says.

        Args:
            indices: which ones to look at
        Returns:
            the paths of those removed
        """
        found = self.find()
        removed = []
        for index in indices:
            # Another process may be looking at the same time.
            with contextlib.suppress(FileNotFoundError):
                if index in found and sha256(found[index])[:16] != _digest(found[index]):
                    os.unlink(found[index])
                    removed.append(found[index])
        return removed


def _digest(path):
    return _NAME.fullmatch(os.path.basename(path))[2]
