"""A resumable result on disk: a manifest of its data and settings, and its chunks."""

import contextlib
import logging
import os
import shutil
import tempfile

from fairseq_seqkd.chunked.folder import ChunkFolder
from fairseq_seqkd.chunked.manifest import ManifestFolder
from fairseq_seqkd.chunked.plan import plan_chunks
from fairseq_seqkd.io.files import remove_partial_files, sha256, write_json
from fairseq_seqkd.io.locks import seen_at_last

logger = logging.getLogger(__name__)


class ChunkedStore(ManifestFolder):
    """A folder with a manifest and chunks; it need not exist yet.

    A subclass has ``write_chunk(index, sentences)`` and, beside those of `ManifestFolder`,
    these class attributes:
        FOLDER, SUFFIX: the folder of its chunks, and the suffix of their names

    Args:
        root: the store's folder
    """

    def __init__(self, root):
        super().__init__(root)
        self.chunks = ChunkFolder(self.path(self.FOLDER), self.SUFFIX)

    def create(self, manifest):
        """Write the manifest of a new store, or check the one that another process wrote.

        Raises:
            ValueError: another process wrote a different one, or the folder has chunks
                without a manifest
        """
        if self.chunks.find() and not seen_at_last(lambda: self.exists):
            raise ValueError(
                f"{self.FLAG}: {self.root!r} has chunks, but no manifest.json that "
                "describes them. Delete the folder, or name another."
            )
        os.makedirs(self.path(self.FOLDER), exist_ok=True)
        super().create(manifest)

    @contextlib.contextmanager
    def replaced(self):
        """Move the existing store aside; delete it after the block, restore it on an error.

        Raises:
            ValueError: the folder has files that are not the store's
        """
        if not os.path.isdir(self.root) or not os.listdir(self.root):
            yield
            return
        foreign = [entry.name for entry in os.scandir(self.root) if not self._is_ours(entry)]
        if foreign:
            raise ValueError(
                f"--overwrite: {self.root!r} has {sorted(foreign)[0]!r}, which is not a "
                f"{self.KIND}'s. Nothing was removed."
            )
        parent, name = os.path.split(os.path.abspath(self.root))
        away = tempfile.mkdtemp(prefix=f".{name}.", suffix=".old", dir=parent)
        os.rename(self.root, away)
        try:
            yield
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            os.rename(away, self.root)
            raise
        shutil.rmtree(away)

    def _is_ours(self, entry):
        """Whether a directory entry of the folder belongs to the store."""
        return entry.name in ("manifest.json", self.FOLDER) or entry.name.endswith(".part")

    def n_chunks(self, sentences):
        """The number of chunks of a split with so many sentences."""
        return -(-sentences // self.manifest["chunk_size"])

    def plan(self, lengths):
        """The sentence ids of every chunk; see `plan_chunks`."""
        return plan_chunks(lengths, self.manifest["chunk_size"])

    def missing(self, n_chunks, check=()):
        """The indices of missing chunks; damaged ones among ``check`` are removed first."""
        for path in self.chunks.remove_damaged(check):
            logger.warning("%s was damaged: it is made again", path)
        return self.chunks.missing(n_chunks)

    def n_missing(self, n_chunks, worker):
        """The number of missing chunks, as soon as those of other hosts are seen.

        Args:
            n_chunks: how many chunks a finished store has
            worker: `Worker` of this process, which has computed its own chunks
        """
        if worker.spans_hosts:
            seen_at_last(lambda: not self.chunks.missing(n_chunks))
        return len(self.chunks.missing(n_chunks))

    @contextlib.contextmanager
    def sealed(self):
        """Seal a finished store and hold its lock: nothing partial is left in it.

        The whole SHA-256 of every chunk is stored, unless that was done before.
        """
        with self.lock():  # without locks, several processes may do the same at once
            remove_partial_files(self.root)
            remove_partial_files(self.path(self.FOLDER))
            self._write_sums()
            yield

    def _write_sums(self):
        sums = self.path(self.FOLDER, "sums.json")
        if not os.path.exists(sums):
            paths = self.chunks.find().values()
            write_json(sums, {os.path.basename(path): sha256(path) for path in paths})
