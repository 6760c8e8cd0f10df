"""Translates splits with every model, engine and beam, and measures quality and speed."""

import tempfile

import numpy as np
import torch

from fairseq_seqkd.evaluate.candidates import Candidate
from fairseq_seqkd.evaluate.corpus import Corpus
from fairseq_seqkd.evaluate.engines import check_engine_name, torch_devices
from fairseq_seqkd.evaluate.outputs import name_outputs, text_files
from fairseq_seqkd.evaluate.report import ModelSummary, Report
from fairseq_seqkd.evaluate.runs import prepare_runs, texts_of, translate
from fairseq_seqkd.evaluate.scoring import score_runs
from fairseq_seqkd.evaluate.versions import collect_versions
from fairseq_seqkd.models.parameters import count_nonzero


def evaluate(checkpoints, settings):
    """Compare models on one or several splits.

    Args:
        checkpoints: {name: checkpoint path}; the others are compared with the first
        settings: `Settings`
    Returns:
        a `Report`, and its output files as `text_files` returns them
    Raises:
        FileNotFoundError, ValueError: as for `Candidate.load`, `Detokeniser`,
            `Corpus.load` and `load_into_engines`; or a sentence has no translation
    """
    for name in settings.engines or ():
        check_engine_name(name)
    devices = torch_devices(settings.devices)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    candidates = _load_candidates(checkpoints, settings)
    for candidate in candidates:
        candidate.set_text(settings.remove_bpe, settings.moses, settings.spm_model)
    first = candidates[0]
    ways = first.detokenise, first.detokenise_source
    corpus = Corpus.load(first.splits, *ways, settings.reference_files)
    report = Report(
        settings.split,
        len(corpus),
        [_summarise(candidate) for candidate in candidates],
        [],
        notes=_notes_on_data(candidates) + _notes_on_text(corpus.references),
        versions=collect_versions(devices),
        splits={split.name: len(split) for split in first.splits},
        lenpen_split=settings.tune_lenpen,
    )
    with tempfile.TemporaryDirectory() as folder:
        runs = prepare_runs(candidates, settings, devices, folder, report.notes)
        translate(runs, corpus.lengths, settings.rounds, devices)
    for run in runs:
        run.texts.extend(texts_of(run, corpus))
    report.rows = [run.row for run in runs]
    name_outputs(report.rows, settings.split_names)
    score_runs(report, runs, corpus)
    for summary in report.models:
        _measure_mode(summary, [run for run in runs if run.row.model == summary.name])
    return report, text_files(corpus, runs)


def _load_candidates(checkpoints, settings):
    data_of = settings.data_of or {}
    unknown = sorted(set(data_of) - set(checkpoints))
    if unknown:
        raise ValueError(
            f"--data-of: no checkpoint is called {unknown[0]!r}, expected one of "
            f"{', '.join(checkpoints)}"
        )
    candidates = [
        Candidate.load(
            *(name, path, data_of.get(name, settings.data), settings.split_names),
            settings.languages,
        )
        for name, path in checkpoints.items()
    ]
    for other in candidates[1:]:
        for split, expected in zip(other.splits, candidates[0].splits):
            _check_same_lines(other.name, split, expected)
    return candidates


def _check_same_lines(name, split, expected):
    if len(split) != len(expected):
        raise ValueError(
            f"--data-of {name}: {split.folder!r} has {len(split)} lines in {split.name!r}, "
            f"expected the {len(expected)} of {expected.folder!r}: the same text, binarised "
            "with other dictionaries"
        )


def _summarise(candidate):
    weights = candidate.weights
    return ModelSummary(
        *(candidate.name, candidate.path, candidate.data),
        parameters=sum(tensor.numel() for tensor in weights.values()),
        nonzero_parameters=count_nonzero(weights),
        checkpoint_bytes=candidate.checkpoint_bytes,
    )


def _notes_on_data(candidates):
    first = candidates[0]
    return [
        f"{other.name} has other dictionaries than {first.name} and uses the data-bin "
        f"{other.data}: compare their scores, which are on text, but not their numbers "
        "of tokens."
        for other in candidates[1:]
        if other.data != first.data
    ]


def _notes_on_text(references):
    marks = [mark for mark in ("▁", "@@ ") if any(mark in line for line in references)]
    if not marks:
        return []
    return [
        f"The references contain {marks[0].strip()!r}: the scores are computed on subwords, "
        "and are higher than on text. Join subwords with --remove-bpe, and give --ref a file "
        "of plain text."
    ]


def _measure_mode(summary, runs):
    """Fill in how peaked a model's distribution is around its beam output.

    Args:
        summary: the model's `ModelSummary`
        runs: the model's runs
    """
    engine = min(runs, key=lambda run: run.row.engine != "fairseq").row.engine
    runs = [run for run in runs if run.row.engine == engine]
    largest = max(runs, key=lambda run: run.row.beam)
    if engine == "fairseq":
        lprobs = np.array([lprob for _, lprob in largest.outputs.values()])
        summary.mode_mass = float(np.exp(lprobs).mean())
    greedy = [run for run in runs if run.row.beam == 1]
    if greedy and largest.row.beam > 1:
        equal = [
            np.array_equal(greedy[0].outputs[i][0], tokens)
            for i, (tokens, _) in largest.outputs.items()
        ]
        summary.greedy_equals_beam = float(np.mean(equal))
