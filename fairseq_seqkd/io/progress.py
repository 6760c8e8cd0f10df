"""Progress bars: on a terminal they move, in a log file they add a line now and then."""

import sys

from tqdm import tqdm


def progress_bar(*items, **options):
    """tqdm's bar, which does not fill log files."""
    return tqdm(*items, mininterval=0.2 if sys.stderr.isatty() else 10, **options)


class SentenceProgress:
    """A bar with sentences and tokens a second, and an estimate of the time left.

    Args:
        sentences: how many there are
        disable: whether to show nothing
    """

    def __init__(self, sentences, disable=False):
        self.bar = progress_bar(total=sentences, unit=" sentences", disable=disable)
        self.tokens = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._show_rate()
        self.bar.close()

    def add(self, tokens):
        """Count one sentence and its tokens."""
        self.tokens += tokens
        if self.bar.update(1):
            self._show_rate()

    def _show_rate(self):
        rate = self.tokens / max(self.bar.format_dict["elapsed"], 1e-3)
        self.bar.set_postfix_str(f"{rate:.0f} tokens/s")
