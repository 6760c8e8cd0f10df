"""Language tokens: what multilingual tasks add to plain pairs of a source and a target.

A data-bin has plain pairs: words, then EOS. A model of a multilingual task reads and generates
more, such as ``__de__``. `LanguageTokens` says what, for one direction.
"""

from dataclasses import dataclass, replace
from typing import FrozenSet, Optional, Tuple

import torch
from fairseq.data.multilingual.multilingual_utils import get_lang_tok
from fairseq.tasks import TASK_REGISTRY
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq.tasks.multilingual_translation import MultilingualTranslationTask
from fairseq.tasks.speech_to_text import SpeechToTextTask
from fairseq.tasks.translation import TranslationTask
from fairseq.tasks.translation_from_pretrained_bart import TranslationFromPretrainedBARTTask
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask


@dataclass(frozen=True)
class LanguageTokens:
    """Symbols before and after the words of a pair; in plain text there is EOS alone.

    Attributes:
        source_start, source_end: symbols around the source's words
        context_start: symbols before the words in the decoder's context; all but the first are
            forced in generation, and are targets in training
        target_end: symbols after the words of a target; generation ends with the last one
        names: all symbols that the task adds to its dictionaries, of every language
        symbols: their indices in the target dictionary
        pad, eos: of both dictionaries
        n_symbols: how many symbols count, the first ones; None: all
    """

    source_start: Tuple[int, ...]
    source_end: Tuple[int, ...]
    context_start: Tuple[int, ...]
    target_end: Tuple[int, ...]
    names: FrozenSet[str]
    symbols: FrozenSet[int]
    pad: int
    eos: int
    n_symbols: Optional[int] = None

    @property
    def is_plain(self):
        """Whether nothing is added to plain pairs."""
        ends = {self.source_end, self.context_start, self.target_end}
        return not self.source_start and ends == {(self.eos,)}

    @property
    def n_source(self):
        """The number of tokens that a source has more than a plain one."""
        return len(self.source_start) + len(self.source_end) - 1

    @property
    def shift(self):
        """How many positions later the model predicts what follows the same plain context."""
        return len(self.context_start) - 1

    @property
    def n_target(self):
        """The number of tokens that a target has more than a plain one."""
        return self.shift + len(self.target_end) - 1

    def add_to_inputs(self, net_input):
        """The arguments of the model's forward, of those of a batch of plain pairs.

        Args:
            net_input: as fairseq's LanguagePairDataset collates them; it is not changed
        Returns:
            ``src_tokens`` is ``n_source`` wider, and ``prev_output_tokens``, if it is there,
            ``shift`` wider
        """
        sources = self.add_to_sources(net_input["src_tokens"])
        lengths = net_input["src_lengths"] + self.n_source
        added = {**net_input, "src_tokens": sources, "src_lengths": lengths}
        if "prev_output_tokens" in net_input:
            added["prev_output_tokens"] = self.add_to_contexts(net_input["prev_output_tokens"])
        return added

    def add_to_sources(self, tokens):
        """Sources, (batch, length + n_source), of plain ones, (batch, length).

        Padding may be on either side.
        """
        used = tokens.ne(self.pad).long()
        first = used.argmax(1, keepdim=True)
        last = tokens.size(1) - 1 - used.flip(1).argmax(1, keepdim=True)
        tokens = tokens.scatter(1, last, self.source_end[0])
        for token in reversed(self.source_end[1:]):
            tokens = _insert(tokens, last + 1, token)
        for token in reversed(self.source_start):
            tokens = _insert(tokens, first, token)
        return tokens

    def add_to_contexts(self, contexts):
        """(batch, shift + length) contexts of the decoder, of (batch, length) plain ones."""
        start = contexts.new_tensor(self.context_start).expand(len(contexts), -1)
        return torch.cat([start, contexts[:, 1:]], dim=1)

    def strip(self, tokens):
        """The plain target, with EOS, of (length,) generated tokens."""
        added = {*self.symbols, *self.context_start, *self.target_end, self.eos}
        is_added = sum(tokens.eq(symbol) for symbol in added).bool()
        return torch.cat([tokens[~is_added], tokens.new_tensor([self.eos])])


def _insert(tokens, columns, token):
    """Insert a token into each row at a (batch, 1) column; what stands there moves right."""
    width = tokens.size(1) + 1
    index = torch.arange(width, device=tokens.device).expand(len(tokens), width)
    index = index - (index > columns).long()
    return tokens.gather(1, index.clamp(max=width - 2)).scatter(1, columns, token)


def _plain(task, source, target, eos):
    return (), eos, eos, eos, ()


def _multi_simple_epoch(task, source, target, eos):
    manager, args = task.data_manager, task.args
    if args.enable_lang_ids:
        raise ValueError(
            "--enable-lang-ids: the model reads the numbers of languages, which batches of "
            "plain pairs do not have. Let fairseq-generate translate, and import its output."
        )
    source_spec, target_spec = args.langtoks["main"]
    of_source = _tuple(manager.get_encoder_langtok(source, target, source_spec))
    of_target = _tuple(manager.get_decoder_langtok(target, target_spec))
    names = [
        get_lang_tok(lang, args.lang_tok_style, spec)
        for lang in task.langs
        for spec in args.langtoks_specs
    ]
    if args.lang_tok_replacing_bos_eos:
        return (), of_source or eos, of_target or eos, eos, names
    return of_source, eos, eos + of_target, eos, names


def _multilingual(task, source, target, eos):
    of_source = _tuple(task.get_encoder_langtok(source, target))
    names = [f"__{lang}__" for lang in task.langs]
    return (), of_source, _tuple(task.get_decoder_langtok(target)), eos, names


def _pretrained_bart(task, source, target, eos):
    of_source = _tuple(task.source_dictionary.index(f"[{source}]"))
    of_target = _tuple(task.target_dictionary.index(f"[{target}]"))
    prepends_bos = getattr(config_of_task(task), "prepend_bos", False)
    bos = (task.target_dictionary.bos(),) if prepends_bos else ()
    names = [f"[{lang}]" for lang in task.langs]
    return bos, eos + of_source, of_target + bos, eos + of_target, names


def _tuple(token):
    return () if token is None else (token,)


# A task's values of the attributes of `LanguageTokens`, the symbols by their names.
_OF_TASK = {
    TranslationTask: _plain,
    TranslationMultiSimpleEpochTask: _multi_simple_epoch,
    MultilingualTranslationTask: _multilingual,
    TranslationFromPretrainedBARTTask: _pretrained_bart,
}
_MASK = "<mask>"  # some of these tasks append it together with their languages


def language_tokens_of(task):
    """The `LanguageTokens` of a task, for its direction (see `languages_of`).

    Raises:
        ValueError: the task is not one of those that are known here, or it reads more than
            tokens
    """
    if not _is_known(task):
        names = [name for name, kind in TASK_REGISTRY.items() if kind in _OF_TASK]
        raise ValueError(
            f"the task {_stock_class(task).__name__} may read and generate more than plain "
            f"pairs of a source and a target. Expected one of {', '.join(sorted(names))}. With "
            "another let fairseq-generate translate, and import its output."
        )
    dictionary = task.target_dictionary
    eos = (dictionary.eos(),)
    *around, names = _OF_TASK[_stock_class(task)](task, *languages_of(task), eos)
    names = frozenset([*names, _MASK]) & set(dictionary.symbols)
    symbols = frozenset(map(dictionary.index, names))
    return LanguageTokens(*around, names, symbols, dictionary.pad(), dictionary.eos())


def tokens_to_add(teacher_task, student_task=None):
    """The `LanguageTokens` that a student's batches lack for the teacher; None if nothing.

    Args:
        teacher_task: its direction is that of the batches
        student_task: None for batches of plain pairs, or of the teacher's own task
    Raises:
        ValueError: what the teacher reads cannot be made of what the student reads
    """
    if type(student_task) in (type(teacher_task), type(None)) and not _is_known(teacher_task):
        return None  # both read the same, whatever it is
    if isinstance(teacher_task, LanguageModelingTask):
        raise ValueError(
            f"the teacher is a language model, and the student's task "
            f"{type(student_task).__name__} has sources, which it does not read: "
            "--teacher-source none lets it score targets without them"
        )
    wanted = language_tokens_of(teacher_task)
    found = None if student_task is None else _tokens_of_student(student_task)
    if wanted == found:
        return None
    if found is None or found.is_plain:
        return tokens_of_plain_pairs(teacher_task, student_task)
    raise ValueError(
        f"the student's task {type(student_task).__name__} adds language tokens that the "
        f"teacher, of the task {type(teacher_task).__name__}, does not read. Train the student "
        "with --task translation on one direction, or with the teacher's task and settings."
    )


def tokens_of_plain_pairs(teacher_task, student_task=None):
    """The `LanguageTokens` that plain pairs lack for the teacher; None if nothing.

    Args:
        teacher_task, student_task: as for `tokens_to_add`; of the student's only the size of
            the target dictionary counts
    """
    wanted = language_tokens_of(teacher_task)
    dictionary = getattr(student_task, "target_dictionary", teacher_task.target_dictionary)
    return None if wanted.is_plain else replace(wanted, n_symbols=len(dictionary))


def check_plain_targets(task):
    """Refuse a student whose targets have language tokens, for a teacher with its own source.

    Raises:
        ValueError: names the task
    """
    tokens = language_tokens_of(task) if _is_known(task) else None
    is_plain = tokens is None or tokens.context_start == tokens.target_end == (tokens.eos,)
    if not is_plain or (n_given_symbols(task) or 1) > 1:
        raise ValueError(
            f"--teacher-source: targets of the student's task {type(task).__name__} have "
            "language tokens, which the teacher does not know: expected words and EOS alone. "
            "Leave out prepend_tgt_lang_tag (speech), or take --task translation."
        )


def _tokens_of_student(task):
    """As `language_tokens_of`; None for another task with pairs of a source and a target."""
    if isinstance(task, MultilingualTranslationTask) and len(task.model_lang_pairs) > 1:
        raise ValueError(
            f"--task multilingual_translation has a model for each of {task.model_lang_pairs}, "
            "and a teacher is loaded for one direction. Train with --task translation, or with "
            "--task translation_multi_simple_epoch, which has one model for all."
        )
    if _is_known(task):
        return language_tokens_of(task)
    if not isinstance(task, TranslationTask):
        raise ValueError(
            f"the student's task is {type(task).__name__}, the teacher's a translation task: "
            "expected a teacher of the same task, since both read the same batches"
        )
    return None


def _is_known(task):
    return _stock_class(task) in _OF_TASK


def is_multilingual(name):
    """Whether the task of this name adds language tokens."""
    return TASK_REGISTRY.get(name) in _OF_TASK and TASK_REGISTRY[name] is not TranslationTask


def n_given_symbols(task):
    """How many symbols of a target are given in generation: the start, and a language token.

    None for a task that is not known here.

    Raises:
        ValueError: the number depends on the kind of data
    """
    if isinstance(task, SpeechToTextTask):
        flags = "prepend_tgt_lang_tag", "prepend_bos_and_append_tgt_lang_tag"
        return 1 + any(getattr(task.data_cfg, name, False) for name in flags)
    if not _is_known(task):
        return None
    specs = getattr(getattr(task, "args", None), "langtoks", None) or {}
    if len({bool(of_target) for _, of_target in specs.values()}) > 1:
        raise ValueError(
            f"--langtoks is {specs}: the targets of some kinds of data begin with a language "
            "token and others do not. Take --kd-prefixes data."
        )
    return len(language_tokens_of(task).context_start)


def given_symbols(sample, rows, task):
    """The symbols of targets that are given: a student generates what stands between them.

    Args:
        sample: a batch as the task collates it
        rows: (n,) indices
        task: the student's
    Returns:
        (n, given) symbols that the decoder's context begins with, and (n,) symbols that end a
        target; both EOS, unless the task has language tokens
    Raises:
        ValueError: the task is not known, and has other symbols there
    """
    dictionary, n = task.target_dictionary, n_given_symbols(task)
    contexts = sample["net_input"]["prev_output_tokens"][rows]
    target, pad = sample["target"][rows], dictionary.pad()
    last = target.size(1) - 1 - target.ne(pad).long().flip(1).argmax(1, keepdim=True)
    starts, ends = contexts[:, : n or 1], target.gather(1, last).squeeze(1)
    others = [] if n else torch.cat([starts.flatten(), ends]).unique().tolist()
    for symbol in set(others) - {dictionary.eos(), pad}:
        raise ValueError(
            f"--kd-prefixes: targets begin or end with {dictionary[symbol]!r} in the task "
            f"{type(task).__name__}, expected {dictionary.eos_word!r}, with which a student "
            "begins and ends. Take --kd-prefixes data."
        )
    return starts.masked_fill(starts.eq(pad), dictionary.eos()), ends


def languages_of(task):
    """The source and target language of a task, see `direction_of`."""
    return direction_of(config_of_task(task))


def direction_of(config):
    """The source and target language of a task's configuration; of several pairs the first."""
    pair = getattr(config, "source_lang", None), getattr(config, "target_lang", None)
    pairs = getattr(config, "lang_pairs", None)
    if None in pair and pairs:
        return tuple((pairs.split(",") if isinstance(pairs, str) else pairs)[0].split("-"))
    return pair


def config_of_task(task):
    """A task's configuration (new tasks: ``cfg``; old ones: ``args``), or None."""
    return getattr(task, "cfg", None) or getattr(task, "args", None)


def _stock_class(task):
    """The class of a task, or of the stock task in whose place it stands."""
    return TASK_REGISTRY.get(getattr(task, "stock_name", None), type(task))
