"""Files and folders that appear under their final name only when they are whole."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time


@contextlib.contextmanager
def atomic_file(path, new=False):
    """A binary file to write to; it gets its name when the block ends without error.

    Args:
        path: the final name; an older file of that name is replaced
        new: leave an older file as it is
    Raises:
        FileExistsError: there is an older one, and this is to be a new one
    """
    folder, name = os.path.split(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        if new:
            os.link(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_folder(folder)


@contextlib.contextmanager
def atomic_directory(path):
    """A folder to write into; it gets its name when the block ends without error.

    Args:
        path: the final name
    Raises:
        FileExistsError: it is there already; what is there is left as it is
    """
    parent, name = os.path.split(os.path.abspath(path))
    temporary = tempfile.mkdtemp(prefix=f".{name}.", dir=parent)
    try:
        yield temporary
        for entry in os.scandir(temporary):
            with open(entry.path, "rb") as file:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o777 & ~_umask())
        _rename_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(parent)


def write_json(path, content, new=False):
    """Write ``content`` as JSON with sorted keys, so that equal content is equal bytes.

    Args and errors as for :func:`atomic_file`.
    """
    with atomic_file(path, new) as file:
        file.write((json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def read_json(path):
    """The content of a JSON file."""
    with open(path) as file:
        return json.load(file)


def sha256(path):
    """The file's SHA-256 as a hexadecimal string."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def wait_for(path, seconds=0.2):
    """Return once ``path`` is there; processes wait for each other by this alone."""
    while not os.path.exists(path):
        time.sleep(seconds)


def _rename_folder(old, new):
    try:
        os.rename(old, new)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(error.errno, "is there already", new) from error
        raise


def _sync_folder(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
