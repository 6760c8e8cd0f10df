"""Progress bars that redraw often on a terminal and rarely in a log file."""

import sys

from tqdm import tqdm


def progress_bar(*items, **options):
    """A tqdm bar that adds a line to a log file at most every ten seconds."""
    return tqdm(*items, mininterval=0.2 if sys.stderr.isatty() else 10, **options)


class WorkProgress:
    """A bar over the tokens of some sentences, by which it estimates the time left.

    Sentences are often sorted by length, so that their number says little about it.

    Args:
        tokens, sentences: their total numbers
        options: tqdm's, such as ``desc`` and ``disable``
    """

    def __init__(self, tokens, sentences, **options):
        self.bar = progress_bar(total=tokens, unit=" tokens", unit_scale=True, **options)
        self.sentences, self.done = sentences, 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._show_sentences()
        self.bar.close()

    def add(self, tokens, sentences=1):
        """Count sentences of so many tokens together."""
        self.done += sentences
        if self.bar.update(int(tokens)):
            self._show_sentences()

    def _show_sentences(self):
        self.bar.set_postfix_str(f"{self.done} of {self.sentences} sentences")
