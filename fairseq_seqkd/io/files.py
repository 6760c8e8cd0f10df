"""Atomic writes of files and folders, JSON files, and checksums."""

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time

# Temporary names look like .NAME.HOST.PID.RANDOM.part; a killed process leaves them behind.
_PARTIAL_NAME = re.compile(r"\.(.+)\.([^.]*)\.(\d+)\.[^.]*\.part")
_HOST = re.sub(r"\W", "-", platform.node())
_SECONDS_A_DAY = 24 * 3600


@contextlib.contextmanager
def atomic_file(path, exclusive=False, sweep=True):
    """Open a binary file that appears under its name when the block ends without error.

    Args:
        path: the final name; an existing file of that name is replaced
        exclusive: keep an existing file, and raise FileExistsError
        sweep: first remove what killed processes left of a file of that name; this lists
            the folder
    Raises:
        FileExistsError: the file exists, and ``exclusive`` is True
        OSError: it could not be written, such as on a full disk; names the file
    """
    folder, name = os.path.split(os.path.abspath(path))
    with name_in_errors(path, replace=True):
        if sweep:
            remove_partial_files(folder, name)
        handle, temporary = tempfile.mkstemp(**_temporary_name(name), dir=folder)
    try:
        with name_in_errors(path), os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        if exclusive:
            os.link(temporary, path)
        else:
            with name_in_errors(path, replace=True):
                os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_folder(folder)


@contextlib.contextmanager
def atomic_directory(path):
    """Make a folder that appears under its name when the block ends without error.

    What killed processes left of a folder of that name is removed first.

    Args:
        path: the final name
    Raises:
        FileExistsError: the folder exists; it is left as it is
        OSError: it could not be written, such as on a full disk; names the folder
    """
    parent, name = os.path.split(os.path.abspath(path))
    with name_in_errors(path, replace=True):
        remove_partial_files(parent, name)
        temporary = tempfile.mkdtemp(**_temporary_name(name), dir=parent)
    try:
        with name_in_errors(path):
            yield temporary
            for folder, _, names in os.walk(temporary):
                for name in names:
                    with open(os.path.join(folder, name), "rb") as file:
                        os.fsync(file.fileno())
        os.chmod(temporary, 0o777 & ~_umask())
        _rename_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(parent)


@contextlib.contextmanager
def name_in_errors(path, replace=False):
    """Put a path into operating-system errors that name no file.

    Args:
        path: the path to name
        replace: also put it in place of another path, such as a temporary file's
    """
    try:
        yield
    except OSError as error:
        if (error.filename is None or replace) and error.errno is not None:
            error.filename = str(path)
        raise


def remove_partial_files(folder, name=None):
    """Remove the half-written files and folders that killed processes left in ``folder``.

    Args:
        folder: the folder; those of processes that still run are kept
        name: only those that were to become a file of this name; None: all
    """
    for entry in list(os.scandir(folder)):
        match = _PARTIAL_NAME.fullmatch(entry.name)
        if not match or name not in (None, match[1]):
            continue
        with contextlib.suppress(FileNotFoundError):
            if _is_abandoned(match[2], int(match[3]), entry.stat().st_mtime):
                if entry.is_dir():
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)


def _temporary_name(name):
    return {"prefix": f".{name}.{_HOST}.{os.getpid()}.", "suffix": ".part"}


def _is_abandoned(host, pid, modified):
    """Whether the writing process is gone; on another host, whether the file is a day old."""
    if host != _HOST:
        return time.time() - modified > _SECONDS_A_DAY
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def write_json(path, content, exclusive=False):
    """Write ``content`` as JSON with sorted keys, so that equal content gives equal bytes.

    Args and errors as for `atomic_file`.
    """
    with atomic_file(path, exclusive) as file:
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


def _rename_folder(old, new):
    try:
        os.rename(old, new)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(error.errno, "exists already", new) from error
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
