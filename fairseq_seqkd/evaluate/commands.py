"""The shell command that reproduces a row of a report."""

import os
import shlex

from fairseq.tasks.translation import TranslationTask

from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.decoding.text import has_byte_pieces
from fairseq_seqkd.evaluate.engines import SHORTLIST


def command_for(row, candidate, search, settings):
    """The command that prints a row's scores again.

    It is stock fairseq-generate and sacrebleu if they give the same number, and
    ``fairseq-seqkd evaluate`` otherwise.

    Args:
        row: `Row`
        candidate: `Candidate` of its first seed
        search: `SearchOptions` of its first seed
        settings: `Settings`
    """
    if _is_reproducible_with_fairseq(row, candidate, settings):
        return _fairseq_generate_command(row, candidate, search, settings)
    return _evaluate_command(row, candidate, search, settings)


def _search_flags(search, without=None):
    """The flags, fairseq-generate's and ours, for what differs from the defaults."""
    defaults, flags = SearchOptions(), []
    for name in ("lenpen", "max_len_a", "max_len_b"):
        value = getattr(search, name)
        if value != getattr(defaults, name) and name != without:
            flags += [f"--{name.replace('_', '-')}", value]
    return flags


def _is_reproducible_with_fairseq(row, candidate, settings):
    """Whether fairseq-generate and sacrebleu alone give the row's number."""
    if len(candidate.splits) > 1 or len(row.seeds) > 1:
        return False
    task, (split,) = candidate.model.task, candidate.splits
    dictionaries = [f"dict.{lang}.txt" for lang in candidate.languages]
    return (
        row.engine == "fairseq"
        and isinstance(task, TranslationTask)
        and settings.reference_files is not None
        and settings.moses in (None, split.target_lang)
        and settings.spm_model is None
        # fairseq prints byte pieces as they are.
        and not (settings.remove_bpe and has_byte_pieces(candidate.dictionary))
        and not split.is_source_only
        and all(os.path.exists(os.path.join(split.folder, name)) for name in dictionaries)
    )


def _fairseq_generate_command(row, candidate, search, settings):
    cfg = candidate.model.task.cfg
    generate = [
        *("fairseq-generate", candidate.data, "--path", candidate.path),
        *("--task", cfg._name if candidate.is_refining else "translation"),
        *("--source-lang", cfg.source_lang),
        *("--target-lang", cfg.target_lang, "--gen-subset", candidate.splits[0].name),
        *("--beam", row.beam, *_search_flags(search), *_iteration_flags(row)),
        *("--required-batch-size-multiple", 1),
        *(["--remove-bpe", settings.remove_bpe] if settings.remove_bpe else []),
        *(["--tokenizer", "moses"] if settings.moses else []),
        *(["--cpu"] if row.device == "cpu" else []),
        *([] if cfg.left_pad_source else ["--left-pad-source", "False"]),
    ]
    # fairseq-generate prints detokenised hypotheses on lines that begin with D.
    prefix = "^D-" if settings.moses else "^H-"
    return (
        f'{_quote(generate)} --user-dir "$(fairseq-seqkd user-dir)" | grep {prefix} | '
        f"sort -V | cut -f3 | sacrebleu {_quote(settings.reference_files)} -m bleu chrf"
    )


def _shortlist_flags(row, candidate, settings):
    if not row.engine.endswith(SHORTLIST):
        return []
    return ["--shortlist", f"{candidate.name}={settings.shortlists[candidate.name]}"]


def _iteration_flags(row):
    return [] if row.iterations is None else ["--iter-decode-max-iter", row.iterations]


def _evaluate_command(row, candidate, search, settings):
    checkpoints = ",".join(seed.path for seed in row.seeds)
    # Several seeds may have a length penalty each.
    is_tuned = len({seed.lenpen for seed in row.seeds}) > 1
    tuning = ["--tune-lenpen", settings.tune_lenpen] if is_tuned else []
    command = [
        *("fairseq-seqkd", "evaluate", candidate.data),
        *("--checkpoints", f"{candidate.name}={checkpoints}", "--split", settings.split),
        *("--engines", row.engine, "--devices", row.device, "--beams", row.beam),
        *_shortlist_flags(row, candidate, settings),
        *_search_flags(search, without="lenpen" if is_tuned else None),
        *tuning,
        *_iteration_flags(row),
        *(["--remove-bpe", settings.remove_bpe] if settings.remove_bpe else []),
        *(["--moses", settings.moses] if settings.moses else []),
        *(["--spm-model", settings.spm_model] if settings.spm_model else []),
        *(["--ref", *settings.reference_files] if settings.reference_files else []),
    ]
    return _quote(command)


def _quote(words):
    """The words as one shell command."""
    return " ".join(shlex.quote(str(word)) for word in words)
