"""A teacher whose tokens another model drafts; see ``decoding/speculative.py``."""

from typing import Any, NamedTuple

import torch

from fairseq_seqkd.decoding.rollout import can_generate
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.decoding.speculative import (
    DraftCounts,
    Limits,
    RewindingScorer,
    Symbols,
    speculate,
)
from fairseq_seqkd.models.dictionaries import first_difference
from fairseq_seqkd.models.loading import ModelRole

DRAFT = ModelRole("draft", "--draft-data", "--draft-dtype")


class Translation(NamedTuple):
    """A target that was generated.

    Attributes:
        tokens: (length,) ids that end in EOS
        drafts: `DraftCounts`
        is_cut: whether it was cut at the longest length, and EOS put there
    """

    tokens: Any
    drafts: DraftCounts
    is_cut: bool


class DraftedTeacher:
    """Translates with a teacher, whose tokens a draft model proposes, a sentence at a time.

    Args:
        teacher, draft: `Teacher`, with the same dictionaries, on the same device
        rule: `GreedyRule` or `SamplingRule`
        draft_tokens: the most tokens that are drafted a round
        search: `SearchOptions`, for the length
    Raises:
        ValueError: a model does not generate token by token; the dictionaries differ; fewer
            than one token
    """

    def __init__(self, teacher, draft, rule, draft_tokens, search=None):
        if draft_tokens < 1:
            raise ValueError(f"--draft-tokens is {draft_tokens}, expected 1 or more")
        check_draft(teacher, draft)
        self.teacher, self.draft, self.rule = teacher, draft, rule
        self.draft_tokens = draft_tokens
        self._search = search or SearchOptions(beam=1)
        dictionary = teacher.task.target_dictionary
        # A teacher's forced first tokens count for fairseq's shortest length.
        is_forced = teacher.language_tokens.n_target > 0
        start = end = dictionary.eos()
        self._symbols = Symbols(start, end, dictionary.pad(), is_forced)

    def __call__(self, source, id_):
        """The `Translation` of a sentence.

        Args:
            source: (length,) token ids, with EOS, at most `max_source_positions`
            id_: its draws depend on it
        """
        source = torch.as_tensor(source, dtype=torch.long, device=self.teacher.device)
        lengths = source.new_tensor([len(source)])
        net_input = {"src_tokens": source.unsqueeze(0), "src_lengths": lengths}
        longest = self.teacher.longest_target(len(source), self._search)
        tokens, counts = speculate(
            RewindingScorer(self.draft.incremental_scorer(net_input), self.draft_tokens + 1),
            self.teacher.prefix_scorer(net_input),
            self.rule.of_sentence(id_),
            Limits(self.draft_tokens, longest, self.draft.max_target_positions()),
            self._symbols,
            self.teacher.device,
        )
        is_cut = len(tokens) > longest
        return Translation(self.teacher.language_tokens.strip(tokens), counts, is_cut)

    @property
    def max_source_positions(self):
        """The longest source, in tokens with EOS, that both models take."""
        return min(self.teacher.max_source_positions(), self.draft.max_source_positions())


def check_draft(teacher, draft):
    """Refuse a draft that cannot draft for a teacher.

    Args:
        teacher, draft: `Teacher`
    Raises:
        ValueError: a model does not generate token by token, or the dictionaries differ; names
            the first symbol that does
    """
    for name, one in (("teacher", teacher), ("draft", draft)):
        for model in one.models:
            if not can_generate(model):
                raise ValueError(
                    f"the {name} {one.path!r}, {type(model).__name__}, does not generate token "
                    "by token. Expected a model that reads a source and decodes from left to "
                    "right, as those of translation tasks do."
                )
    for side in ("source", "target"):
        symbols = [_plain_symbols(one, side) for one in (draft, teacher)]
        difference = first_difference(*symbols)
        if difference is not None:
            index, of_draft, of_teacher = difference
            raise ValueError(
                f"the {side} dictionary of the draft {draft.path!r} ({len(symbols[0])} "
                f"symbols) is not that of the teacher {teacher.path!r} ({len(symbols[1])} "
                f"symbols): at index {index} the draft has {of_draft}, the teacher "
                f"{of_teacher}. Expected a student trained with the teacher's dictionaries."
            )


def _plain_symbols(teacher, side):
    """The symbols of a side, without those that its task appended."""
    symbols = getattr(teacher.task, f"{side}_dictionary").symbols
    return [symbol for symbol in symbols if symbol not in teacher.language_tokens.names]
