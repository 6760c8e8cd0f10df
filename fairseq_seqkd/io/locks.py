"""Processes that wait for each other: by locks, and by looking at files."""

import contextlib
import fcntl
import logging
import time

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path):
    """One process at a time; the lock of a killed one is gone with it.

    Args:
        path: a file that is there and stays as it is
    Returns:
        whether the file system can lock; if not, nobody was kept waiting
    """
    with open(path, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            logger.warning("%s cannot be locked here (%s): going on without", path, error)
            yield False
        else:
            yield True


def wait_until(done, what, seconds=0.2, tell_every=60):
    """Return once ``done()``; processes wait for each other by files alone.

    Args:
        done: called without arguments, again and again
        what: what is waited for, said once in ``tell_every`` seconds
    """
    told = time.monotonic()
    while not done():
        if time.monotonic() - told > tell_every:
            logger.warning("waiting for %s", what)
            told = time.monotonic()
        time.sleep(seconds)
