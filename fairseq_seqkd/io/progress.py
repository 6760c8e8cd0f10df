"""Progress bars that redraw often on a terminal and rarely in a log file."""

import sys

from tqdm import tqdm


def progress_bar(*items, **options):
    """A tqdm bar that adds a line to a log file at most every ten seconds."""
    return tqdm(*items, mininterval=0.2 if sys.stderr.isatty() else 10, **options)


class SentenceProgress:
    """A bar that shows sentences and tokens per second, and the estimated time left.

    Args:
        sentences: their total number
        disable: show nothing
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
        """Count one sentence of so many tokens."""
        self.tokens += tokens
        if self.bar.update(1):
            self._show_rate()

    def _show_rate(self):
        rate = self.tokens / max(self.bar.format_dict["elapsed"], 1e-3)
        self.bar.set_postfix_str(f"{rate:.0f} tokens/s")
