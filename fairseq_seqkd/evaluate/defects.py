"""Counts lines that anyone would reject, whatever the BLEU: what goes wrong in translations.

All are counted on text, without a model, and for the references as well: a test set has lines
of each kind itself.
"""

from fairseq_seqkd.decoding.faults import has_loop, numbers_in

_ROOM = 20  # characters that a short line may have more


def is_empty(text):
    """There is nothing but spaces."""
    return not text.strip()


def is_copy(source, text):
    """The text is the source, apart from case and spaces, and not empty."""
    words = text.casefold().split()
    return bool(words) and words == source.casefold().split()


def lost_numbers(source, text):
    """The numbers of the source that the text lacks, a Counter."""
    return numbers_in(source) - numbers_in(text)


class DefectCounter:
    """Counts the lines of a translation that are defective in some way.

    A line is over-long if it has more than twice the characters (and 20 more) that the
    references have for a source of this length.

    Args:
        sources, references: (sentences,) lists of strings
    """

    def __init__(self, sources, references):
        self.sources = sources
        self._ratio = sum(map(len, references)) / max(1, sum(map(len, sources)))
        self.lines_with_numbers = sum(bool(numbers_in(source)) for source in sources)

    def __call__(self, texts):
        """{kind of defect: number of lines}; a line may have several."""
        pairs = list(zip(self.sources, texts))
        return {
            "empty": sum(is_empty(text) for text in texts),
            "copies": sum(is_copy(*pair) for pair in pairs),
            "loops": sum(has_loop(text, source) for source, text in pairs),
            "overlong": sum(self._is_overlong(*pair) for pair in pairs),
            "lost_numbers": sum(bool(lost_numbers(*pair)) for pair in pairs),
        }

    def _is_overlong(self, source, text):
        return len(text) > 2 * self._ratio * len(source) + _ROOM


def count_defects(report, runs, corpus):
    """Fill in the defects of a report's rows, means over seeds, and of the references.

    Args:
        report: `Report`, whose rows are those of the runs
        runs: `Run` list, with texts
        corpus: `Corpus`
    """
    count = DefectCounter(corpus.sources, corpus.references)
    report.lines_with_numbers = count.lines_with_numbers
    report.reference_defects = count(corpus.references)
    for row, run in zip(report.rows, runs):
        found = [count(seed.texts) for seed in run.seeds]
        row.defects = {kind: sum(one[kind] for one in found) / len(found) for kind in found[0]}
