"""The command behind every number."""

import os
import shlex

from fairseq.tasks.translation import TranslationTask


def of(row, candidate, settings):
    """What to type to get a row's translations and scores without this program, if one can.

    Args:
        row: `Row`
        candidate: `Candidate`
        settings: `Settings`
    """
    maker = _fairseq if _stock_can(row, candidate, settings) else _ours
    return maker(row, candidate, settings)


def _stock_can(row, candidate, settings):
    """Whether fairseq-generate and sacrebleu alone come to the same number."""
    task, split = candidate.model.task, candidate.split
    dictionaries = [f"dict.{lang}.txt" for lang in (split.source_lang, split.target_lang)]
    return (
        row.engine == "fairseq"
        and isinstance(task, TranslationTask)
        and settings.reference_file is not None
        and settings.moses in (None, split.target_lang)
        and not split.is_source_only
        and all(os.path.exists(os.path.join(split.folder, name)) for name in dictionaries)
    )


def _fairseq(row, candidate, settings):
    cfg = candidate.model.task.cfg
    generate = [
        *("fairseq-generate", candidate.split.folder, "--path", candidate.path),
        *("--task", "translation", "--source-lang", cfg.source_lang),
        *("--target-lang", cfg.target_lang, "--gen-subset", settings.split),
        *("--beam", row.beam, "--required-batch-size-multiple", 1),
        *(["--remove-bpe", settings.remove_bpe] if settings.remove_bpe else []),
        *(["--tokenizer", "moses"] if settings.moses else []),
        *(["--cpu"] if row.device == "cpu" else []),
        *([] if cfg.left_pad_source else ["--left-pad-source", "False"]),
    ]
    kind = "^D-" if settings.moses else "^H-"
    return (
        f'{_shell(generate)} --user-dir "$(fairseq-seqkd user-dir)" | grep {kind} | sort -V | '
        f"cut -f3 | sacrebleu {_shell([settings.reference_file])} -m bleu chrf"
    )


def _ours(row, candidate, settings):
    command = [
        *("fairseq-seqkd", "evaluate", candidate.split.folder),
        *("--checkpoints", f"{candidate.name}={candidate.path}", "--split", settings.split),
        *("--engines", row.engine, "--devices", row.device, "--beams", row.beam),
        *(["--remove-bpe", settings.remove_bpe] if settings.remove_bpe else []),
        *(["--moses", settings.moses] if settings.moses else []),
        *(["--ref", settings.reference_file] if settings.reference_file else []),
    ]
    return _shell(command)


def _shell(words):
    return " ".join(shlex.quote(str(word)) for word in words)
