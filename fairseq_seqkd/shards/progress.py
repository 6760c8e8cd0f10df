"""Progress bars: on a terminal they move, in a log file they add a line now and then."""

import sys

from tqdm import tqdm


def progress_bar(*items, **options):
    """tqdm's bar, which does not fill log files."""
    return tqdm(*items, mininterval=0.2 if sys.stderr.isatty() else 10, **options)
