"""Synchronisation of processes through the file system: locks, and polling."""

import contextlib
import fcntl
import logging
import os
import time

from fairseq_seqkd.io.files import atomic_directory

# A rename is seen by all hosts after so many seconds: NFS clients keep directory entries for a
# minute at most, unless the mount option acdirmax says otherwise.
SECONDS_SEEN_LATE = 60

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def file_lock(path, create=False):
    """Hold an exclusive lock on a file, which the system releases if the process is killed.

    Args:
        path: a file; its content is not changed
        create: whether to make an empty one if it does not exist
    Returns:
        whether the lock is held; False if the file system has no locks
    """
    with open(path, "a+b" if create else "r+b") as file:
        try:
            _lock(file, path)
        except OSError as error:
            logger.warning("cannot lock %s (%s): going on without a lock", path, error)
            yield False
        else:
            yield True


def _lock(file, path):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("waiting for the process that holds the lock of %s", path)
        fcntl.flock(file, fcntl.LOCK_EX)


def make_folder_once(folder, make):
    """Make a folder unless it is there; other processes wait for the one that makes it.

    Args:
        folder: the folder; the one it lies in exists
        make: called with a temporary folder, which is renamed when it returns
    """
    if not os.path.exists(folder):
        try:
            # Without locks another process may make it in the meantime.
            with file_lock(_lock_of(folder), create=True), contextlib.suppress(FileExistsError):
                if not os.path.exists(folder):
                    with atomic_directory(folder) as new:
                        make(new)
        finally:
            remove_lock_of(folder)
    seen_at_last(lambda: os.path.exists(folder))  # another host's, perhaps


def remove_lock_of(folder):
    """Remove what a process that was killed left, once the folder is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_lock_of(folder))


def _lock_of(folder):
    parent, name = os.path.split(folder)
    return os.path.join(parent, f".{name}.lock.part")


def wait_until(condition, description, poll_seconds=0.2, warn_every=60):
    """Return as soon as a condition holds; warn now and then while it does not.

    Args:
        condition: a function without arguments
        description: of the condition, for the warning "waiting for ..."
        poll_seconds: the pause between two calls of ``condition``
        warn_every: seconds between two warnings
    """
    last_warning = time.monotonic()
    while not condition():
        if time.monotonic() - last_warning > warn_every:
            logger.warning("waiting for %s", description)
            last_warning = time.monotonic()
        time.sleep(poll_seconds)


def seen_at_last(condition, poll_seconds=0.2):
    """Whether a condition holds, or does as soon as this host sees what others have renamed.

    Args:
        condition: a function without arguments
        poll_seconds: the pause between two calls of ``condition``
    """
    end = time.monotonic() + SECONDS_SEEN_LATE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(poll_seconds)
    return True
