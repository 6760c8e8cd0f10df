"""Translates lines of text, or a split of a data-bin, with a teacher and its draft model."""

import logging
import os

from fairseq_seqkd.databin import open_split
from fairseq_seqkd.decoding.speculative import DraftCounts
from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.io.text import STDIN, name_of, read_lines
from fairseq_seqkd.models.language_tokens import languages_of
from fairseq_seqkd.pseudo.text_encoder import TextEncoder

logger = logging.getLogger(__name__)


class SplitSources:
    """The sources of a split of a data-bin.

    Args:
        data: the data-bin
        split: its name
        languages: source and target; None infers them
    Raises:
        FileNotFoundError, ValueError: as for `open_split`
    """

    def __init__(self, data, split, languages=(None, None)):
        self._split = open_split(data, split, *languages)
        self.name = f"{split!r} in {data!r}"
        self.task = self._split.task

    def __len__(self):
        return len(self._split)

    def sentences(self, task, subwords):
        """Yield the token ids of every line."""
        yield from self._split.dataset.src


class TextSources:
    """The lines of a text file or pipe, or of standard input.

    Args:
        path: as for `read_lines`
    Raises:
        FileNotFoundError: there is no such file
    """

    task = None  # its dictionaries are the teacher's

    def __init__(self, path):
        if path != STDIN and not os.path.exists(path):
            raise FileNotFoundError(
                f"no file or folder {path!r}: expected a data-bin, a text file, or - for "
                "standard input"
            )
        self._path, self.name = path, name_of(path)

    def sentences(self, task, subwords):
        """Yield the token ids of every line.

        Args:
            task: has the dictionary
            subwords: `Subwords` that cut the lines
        """
        encode = TextEncoder(task.source_dictionary, subwords.cut_in(languages_of(task)[0]))
        for line in read_lines(self._path):
            yield encode(line)
        if encode.tokens:
            encode.report()


def detokeniser_of(task, subwords, remove_bpe=None):
    """The `Detokeniser` of translations: it undoes how the sources were cut.

    Args:
        task: has the dictionary and the target language
        subwords: `Subwords`
        remove_bpe: the kind of subwords to join; None: those of ``subwords``, if they are cut
    Raises:
        ValueError: as for `Detokeniser`
    """
    moses = languages_of(task)[1] if subwords.tokenizer == "moses" else None
    spm_model = subwords.model if subwords.bpe == "sentencepiece" else None
    if remove_bpe is None and subwords.bpe in ("subword_nmt", "fastbpe"):
        remove_bpe = "subword_nmt"
    return Detokeniser(task.target_dictionary, remove_bpe, moses, spm_model)


class LineTranslator:
    """Translates sentences one by one, and counts how many drafted tokens were kept.

    Args:
        translator: `DraftedTeacher`
        detokenise: `Detokeniser`
        name: of the input, for messages
    Attributes:
        drafts: `DraftCounts` of all sentences so far
        lines, cut: how many sentences there were, and how many were cut at the longest length
    """

    def __init__(self, translator, detokenise, name):
        self._translator, self._detokenise, self._name = translator, detokenise, name
        self.drafts, self.lines, self.cut = DraftCounts(), 0, 0

    def __call__(self, sentences):
        """Yield the translation of every sentence, as text; of an empty one an empty line.

        Args:
            sentences: iterable of (length,) token ids, with EOS
        Raises:
            ValueError: a source is longer than the models take
        """
        for id_, tokens in enumerate(sentences):
            self.lines += 1
            yield "" if len(tokens) == 1 else self._translate(tokens, id_)

    def _translate(self, tokens, id_):
        limit = self._translator.max_source_positions
        if len(tokens) > limit:
            raise ValueError(
                f"line {id_ + 1} of {self._name} has {len(tokens)} tokens with EOS; teacher "
                f"and draft take at most {limit}. Cut the line in two."
            )
        found = self._translator(tokens, id_)
        self.drafts += found.drafts
        self.cut += found.is_cut
        text = self._detokenise.text(found.tokens.cpu().numpy())
        return text.replace("\n", " ")  # of a byte piece

    def report(self):
        """Log how many drafted tokens were kept."""
        drafts = self.drafts
        logger.info(
            "%d lines, %d tokens: %.2f of %.2f drafted tokens a round were accepted (rate "
            "%.3f), block efficiency %.2f (tokens for each run of the teacher)",
            *(self.lines, drafts.tokens, drafts.accepted_per_round),
            *(drafts.drafted_per_round, drafts.acceptance_rate, drafts.block_efficiency),
        )
        if self.cut:
            logger.warning(
                "%d translations were cut at the longest length (--max-len-a, --max-len-b)",
                self.cut,
            )
