"""A folder that long work fills: a manifest that says what of and how, and chunks."""

import contextlib
import logging
import os
import shutil
import tempfile

from fairseq_seqkd.chunked.folder import ChunkFolder
from fairseq_seqkd.chunked.manifest import differences
from fairseq_seqkd.chunked.plan import plan_chunks
from fairseq_seqkd.io.files import read_json, sha256, write_json
from fairseq_seqkd.io.locks import locked

logger = logging.getLogger(__name__)


class ChunkedStore:
    """A store on disk; the folder need not be there yet.

    A subclass says in class attributes what kind of store it is:
        FLAG: by which flag users name it
        KIND: what error messages call it
        FORMAT: the version of its files
        FOLDER, SUFFIX: where its chunks are, and the suffix of their names

    Args:
        root: the folder
    """

    def __init__(self, root):
        self.root = root
        self.chunks = ChunkFolder(self.path(self.FOLDER), self.SUFFIX)

    def path(self, *names):
        return os.path.join(self.root, *names)

    @property
    def exists(self):
        return os.path.exists(self.path("manifest.json"))

    @property
    def manifest(self):
        """What the store was made from and how, as nested dictionaries.

        Raises:
            ValueError: the file is damaged
        """
        path = self.path("manifest.json")
        try:
            manifest = read_json(path)
        except ValueError as error:
            manifest = error
        if not isinstance(manifest, dict):
            raise ValueError(
                f"{self.FLAG}: {path!r} is damaged (found {manifest!r}, expected a JSON "
                f"object). Delete the folder and make the {self.KIND} anew."
            )
        return manifest

    def locked(self):
        """Hold this while building; see `locked`."""
        return locked(self.path("manifest.json"))

    def create(self, manifest):
        """Begin a store. If another process has just done so, it must be the same one.

        Raises:
            ValueError: another process began one that differs, or there are chunks of which
                no manifest says what they are
        """
        if self.chunks.find() and not self.exists:
            raise ValueError(
                f"{self.FLAG}: {self.root!r} has chunks, but no manifest.json that says what "
                "they are. Delete the folder, or name another."
            )
        os.makedirs(self.path(self.FOLDER), exist_ok=True)
        manifest = {"format": self.FORMAT, **manifest}
        try:
            write_json(self.path("manifest.json"), manifest, new=True)
        except FileExistsError:
            self.check(manifest)

    def check(self, expected):
        """Refuse to go on with a store that was made otherwise.

        Args:
            expected: what the manifest should say; entries of None ask for nothing
        Raises:
            ValueError: lists every entry that differs
        """
        found = differences(self.manifest, {"format": self.FORMAT, **expected})
        if found:
            raise ValueError(
                f"{self.FLAG}: the {self.KIND} {self.root!r} was made otherwise:\n  "
                + "\n  ".join(found)
                + "\nName another folder to make a new one, or take the flags and data that "
                "this one was made with."
            )

    @contextlib.contextmanager
    def replaced(self):
        """Put the store that is there away; it is back if the block fails, else gone.

        Raises:
            ValueError: the folder has something that is not a store's
        """
        if not os.path.isdir(self.root) or not os.listdir(self.root):
            yield
            return
        foreign = [one.name for one in os.scandir(self.root) if not self._is_ours(one)]
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
        return entry.name in ("manifest.json", self.FOLDER) or entry.name.endswith(".part")

    def n_chunks(self, sentences):
        """How many chunks a split of so many sentences has."""
        return -(-sentences // self.manifest["chunk_size"])

    def plan(self, lengths):
        """The sentence ids of every chunk, for ``lengths`` in tokens."""
        return plan_chunks(lengths, self.manifest["chunk_size"])

    def missing(self, n_chunks, own):
        """The chunks that are not there, among all; damaged ones among ``own`` go first."""
        for path in self.chunks.remove_damaged(own):
            logger.warning("%s was damaged: it is made again", path)
        return self.chunks.missing(n_chunks)

    def write_sums(self):
        """Seal the chunks: write down every one's checksum."""
        sums = self.path(self.FOLDER, "sums.json")
        if not os.path.exists(sums):
            paths = self.chunks.find().values()
            write_json(sums, {os.path.basename(path): sha256(path) for path in paths})
