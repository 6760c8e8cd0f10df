"""Files and folders that appear under their final name only when they are whole."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import tempfile
import time

logger = logging.getLogger(__name__)

# The name of what is being written: .NAME.HOST.PID.RANDOM.part. A killed process leaves it.
_HALF_WRITTEN = re.compile(r"\..+\.([^.]*)\.(\d+)\.[^.]*\.part")
_HOST = re.sub(r"\W", "-", platform.node())
_A_DAY = 24 * 3600


@contextlib.contextmanager
def atomic_file(path, new=False):
    """A binary file to write to; it gets its name when the block ends without error.

    Args:
        path: the final name; an older file of that name is replaced
        new: leave an older file as it is
    Raises:
        FileExistsError: there is an older one, and this is to be a new one
        OSError: it could not be written, such as on a full disk; names the file
    """
    folder, name = os.path.split(os.path.abspath(path))
    with naming(path, instead=True):
        handle, temporary = tempfile.mkstemp(**_half_written(name), dir=folder)
    try:
        with naming(path), os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        if new:
            os.link(temporary, path)
        else:
            with naming(path, instead=True):
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
        OSError: it could not be written, such as on a full disk; names the folder
    """
    parent, name = os.path.split(os.path.abspath(path))
    with naming(path, instead=True):
        temporary = tempfile.mkdtemp(**_half_written(name), dir=parent)
    try:
        with naming(path):
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
def naming(path, instead=False):
    """Let an error of the operating system that names no file name this one.

    Args:
        instead: also if it names another one
    """
    try:
        yield
    except OSError as error:
        if (error.filename is None or instead) and error.errno is not None:
            error.filename = str(path)
        raise


def sweep(folder):
    """Remove what killed processes left half written in ``folder``."""
    for entry in list(os.scandir(folder)):
        match = _HALF_WRITTEN.fullmatch(entry.name)
        with contextlib.suppress(FileNotFoundError):
            if match and _is_abandoned(match[1], int(match[2]), entry.stat().st_mtime):
                if entry.is_dir():
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)


def _half_written(name):
    return {"prefix": f".{name}.{_HOST}.{os.getpid()}.", "suffix": ".part"}


def _is_abandoned(host, pid, modified):
    """Whether the process is gone; of another host's all that is known is the file's age."""
    if host != _HOST:
        return time.time() - modified > _A_DAY
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def write_json(path, content, new=False):
    """Write ``content`` as JSON with sorted keys, so that equal content is equal bytes.

    Args and errors as for `atomic_file`.
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
