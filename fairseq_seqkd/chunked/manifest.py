"""Folders with a manifest that says what they are made from, and its comparison."""

import os

from fairseq_seqkd.io.files import read_json, write_json
from fairseq_seqkd.io.locks import file_lock, seen_at_last


class ManifestFolder:
    """A folder with a ``manifest.json``; it need not exist yet.

    A subclass has these class attributes:
        FLAG: the flag by which users name the folder
        KIND: its name in error messages
        FORMAT: the version of its files

    Args:
        root: the folder
    """

    def __init__(self, root):
        self.root = root

    def path(self, *names):
        """The path of a file or folder in it."""
        return os.path.join(self.root, *names)

    @property
    def exists(self):
        """Whether there is a manifest."""
        return os.path.exists(self.path("manifest.json"))

    @property
    def manifest(self):
        """The data, models and settings that it is made from, as nested dictionaries.

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
                f"object). Delete the folder and make the {self.KIND} again."
            )
        return manifest

    def lock(self):
        """Lock the folder against other processes; see `file_lock`."""
        return file_lock(self.path("manifest.json"))

    def create(self, manifest):
        """Write a new manifest, or check the one that another process wrote.

        Raises:
            ValueError: another process wrote a different one
        """
        os.makedirs(self.root, exist_ok=True)
        manifest = {"format": self.FORMAT, **manifest}
        try:
            write_json(self.path("manifest.json"), manifest, exclusive=True)
        except FileExistsError:
            seen_at_last(lambda: self.exists)
            self.check(manifest)

    def check(self, expected, exact=()):
        """Refuse a folder whose manifest differs from what is expected.

        Args:
            expected: nested dictionaries; entries of None accept anything
            exact: names of entries of which None accepts None alone
        Raises:
            ValueError: lists every entry that differs
        """
        others = {name: value for name, value in expected.items() if name not in exact}
        lines = differences(self.manifest, {"format": self.FORMAT, **others})
        exactly = {name: expected.get(name) for name in exact}
        lines += differences(self.manifest, exactly, exactly=True)
        if lines:
            raise ValueError(
                f"{self.FLAG}: the {self.KIND} {self.root!r} was made from other data or "
                "with other settings:\n  "
                + "\n  ".join(lines)
                + "\nName another folder to make a new one, or use the flags and data that "
                "this one was made with."
            )


def differences(found, expected, prefix="", exactly=False):
    """List the entries of a manifest that differ from what is expected.

    Args:
        found: the manifest on disk, nested dictionaries
        expected: nested dictionaries; an entry of None accepts anything
        prefix: put before every entry's name
        exactly: an entry of None accepts only None, and entries that ``expected`` lacks
            count as None
    Returns:
        a list of strings "entry: found ..., expected ..."
    """
    lines = []
    for key, wanted in expected.items():
        name, value = f"{prefix}{key}", found.get(key)
        if isinstance(wanted, dict):
            more = dict.fromkeys(value or {}) if exactly else {}
            lines += differences(value or {}, {**more, **wanted}, f"{name}.", exactly)
        elif (exactly or wanted is not None) and value != wanted:
            lines.append(f"{name}: found {value}, expected {wanted}")
    return lines
