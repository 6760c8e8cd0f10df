"""The sentences of an evaluation: several splits, one after the other, with references."""

from dataclasses import dataclass
from typing import Any, Dict, List

import numpy as np

from fairseq_seqkd.io.line_counts import where_they_part
from fairseq_seqkd.io.text import name_of, read_lines


@dataclass
class Corpus:
    """The sentences that all models translate; an id is a position in all splits together.

    Attributes:
        parts: {name of a split: slice of its ids}
        references: (sentences,) text
        sources: (sentences,) text, in which characters without a symbol are lost
        lengths: (sentences,) source lengths in tokens
    """

    parts: Dict[str, slice]
    references: List[str]
    sources: List[str]
    lengths: Any

    @classmethod
    def load(cls, splits, detokenise, detokenise_source, files=None):
        """Load the sources and references of some splits.

        Args:
            splits: `PairSplit` list
            detokenise, detokenise_source: `Detokeniser` of their targets and sources
            files: a text file for every split; None takes the gold targets
        Raises:
            ValueError: another number of files than of splits; or as for `load_references`
        """
        parts, references, sources = {}, [], []
        names = [split.name for split in splits]
        if files is not None and len(files) != len(splits):
            raise ValueError(
                f"--ref names {len(files)} files, expected {len(splits)}: one for each of "
                f"{', '.join(names)}, in this order"
            )
        for split, file in zip(splits, files or [None] * len(splits)):
            begin = len(references)
            references += load_references(split, detokenise, file)
            sources += [detokenise_source.text(tokens.numpy()) for tokens in split.dataset.src]
            parts[split.name] = slice(begin, len(references))
        lengths = np.concatenate([split.dataset.src_sizes for split in splits])
        return cls(parts, references, sources, lengths)

    def __len__(self):
        return len(self.references)

    def locate(self, id_):
        """The text that names a sentence in messages."""
        for name, part in self.parts.items():
            if id_ < part.stop:
                return f"line {id_ - part.start + 1} of {name!r}"
        raise IndexError(id_)


def load_references(split, detokenise, file_name=None):
    """The references of a split as text, one for each sentence.

    Args:
        split: `PairSplit`; its gold targets are the references if no file is given
        detokenise: `Detokeniser`
        file_name: a text file with one reference a line, as for `read_lines`
    Raises:
        ValueError: the file has another number of lines than the split, or the split has no
            gold targets
    """
    if file_name is None:
        if not split.has_gold:
            raise ValueError(
                f"{split.folder!r} has no targets in {split.name!r}: name a reference file "
                "(--ref; --tune-lenpen needs a split with targets)"
            )
        return [detokenise.reference(split.dataset.tgt[i].numpy()) for i in range(len(split))]
    references = list(read_lines(file_name))
    if len(references) != len(split):
        lengths = list(map(len, references))
        raise ValueError(
            f"--ref: {name_of(file_name)!r} has {len(references)} lines, expected the "
            f"{len(split)} of {split.name!r} in {split.folder!r}."
            f"{where_they_part(lengths, split.dataset.src_sizes)}"
        )
    return references
