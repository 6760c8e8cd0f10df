"""Translates a split with every model, engine and beam, and measures quality and speed."""

import os
import tempfile
from dataclasses import dataclass
from typing import List, NamedTuple, Optional

import numpy as np
import torch

from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.evaluate.candidates import Candidate, load_references
from fairseq_seqkd.evaluate.commands import command_for
from fairseq_seqkd.evaluate.engines import (
    LoadedModel,
    check_engine_name,
    load_into_engines,
    torch_devices,
)
from fairseq_seqkd.evaluate.quality import bleu_gain, group_by_length, score_row, subset_bleu
from fairseq_seqkd.evaluate.report import ModelSummary, Report, Row
from fairseq_seqkd.evaluate.speed import decode_in_turns, timing_chunks
from fairseq_seqkd.evaluate.versions import collect_versions
from fairseq_seqkd.io.progress import WorkProgress
from fairseq_seqkd.models.parameters import count_nonzero


@dataclass
class Settings:
    """The settings of an evaluation.

    Attributes:
        data: the data-bin
        split: the split that is translated
        languages: source and target, for models that do not say; None infers them
        data_of: {name: data-bin} for models with other dictionaries; the same sentences
        engines: engine names; None takes all that can be used
        devices: ``cpu``, ``cuda``; None takes the CPU, and a GPU if there is one
        beams: beam sizes, 1 is greedy
        remove_bpe, moses, spm_model: how tokens become text, see `Detokeniser`
        reference_file: text file with one reference a line; None takes the split's gold targets
        rounds: how often everything is timed
        threads: number of CPU threads; None leaves it to torch
    """

    data: str
    split: str = "test"
    languages: tuple = (None, None)
    data_of: Optional[dict] = None
    engines: Optional[List[str]] = None
    devices: Optional[List[str]] = None
    beams: tuple = (1, 5)
    remove_bpe: Optional[str] = None
    moses: Optional[str] = None
    spm_model: Optional[str] = None
    reference_file: Optional[str] = None
    rounds: int = 5
    threads: Optional[int] = None


class Run(NamedTuple):
    """A row with its model and its output.

    Attributes:
        row: the `Row` to fill in
        candidate: `Candidate`
        loaded: `LoadedModel`
        outputs: {id: (tokens, log-probability)}
        texts: the translations in the order of the split
    """

    row: Row
    candidate: Candidate
    loaded: LoadedModel
    outputs: dict
    texts: list

    def decode(self, ids):
        return self.loaded.decode(self.candidate.split.dataset, ids, self.row.beam)


def evaluate(checkpoints, settings):
    """Compare models on one split.

    Args:
        checkpoints: {name: checkpoint path}; the others are compared with the first
        settings: `Settings`
    Returns:
        a `Report`
    Raises:
        FileNotFoundError, ValueError: as for `Candidate.load`, `Detokeniser`,
            `load_references` and `load_into_engines`; or a sentence has no translation
    """
    for name in settings.engines or ():
        check_engine_name(name)
    devices = torch_devices(settings.devices)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    candidates = _load_candidates(checkpoints, settings)
    detokenisers = {
        candidate.name: Detokeniser(
            candidate.dictionary, settings.remove_bpe, settings.moses, settings.spm_model
        )
        for candidate in candidates
    }
    first = candidates[0]
    references = load_references(first, detokenisers[first.name], settings.reference_file)
    report = Report(
        settings.split,
        len(references),
        [_summarise(candidate) for candidate in candidates],
        [],
        notes=_notes_on_data(candidates) + _notes_on_text(references),
        versions=collect_versions(devices),
    )
    with tempfile.TemporaryDirectory() as folder:
        runs = _prepare_runs(candidates, settings, devices, folder, report.notes)
        _translate(runs, first.split.dataset.src_sizes, settings.rounds, devices)
    for run in runs:
        run.texts.extend(_texts(run, detokenisers[run.candidate.name]))
    report.rows = [run.row for run in runs]
    _score(report, runs, references, first.split.dataset.src_sizes)
    for summary in report.models:
        _measure_mode(summary, [run for run in runs if run.row.model == summary.name])
    return report


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
            *(name, path, data_of.get(name, settings.data), settings.split),
            settings.languages,
        )
        for name, path in checkpoints.items()
    ]
    for other in candidates[1:]:
        first = candidates[0]
        if len(other.split) != len(first.split):
            raise ValueError(
                f"--data-of {other.name}: {other.split.folder!r} has {len(other.split)} lines "
                f"in {settings.split!r}, expected the {len(first.split)} of "
                f"{first.split.folder!r}: the same text, binarised with other dictionaries"
            )
    return candidates


def _summarise(candidate):
    weights = candidate.weights
    return ModelSummary(
        *(candidate.name, candidate.path, candidate.split.folder),
        parameters=sum(tensor.numel() for tensor in weights.values()),
        nonzero_parameters=count_nonzero(weights),
        checkpoint_bytes=candidate.checkpoint_bytes,
    )


def _notes_on_data(candidates):
    first = candidates[0]
    return [
        f"{other.name} has other dictionaries than {first.name} and uses the data-bin "
        f"{other.split.folder}: compare their scores, which are on text, but not their numbers "
        "of tokens."
        for other in candidates[1:]
        if other.split.folder != first.split.folder
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


def _prepare_runs(candidates, settings, devices, folder, notes):
    """A `Run` for every model, device, engine and beam; what cannot be used is noted."""
    threads = torch.get_num_threads()
    runs = []
    for number, candidate in enumerate(candidates):
        for device in devices:
            subfolder = os.path.join(folder, f"{number}-{device.type}")
            loaded_models, new_notes = load_into_engines(
                settings.engines, candidate, device, threads, subfolder
            )
            notes.extend(note for note in new_notes if note not in notes)
            for engine, loaded in loaded_models.items():
                for beam in settings.beams:
                    row = Row(candidate.name, engine, device.type, threads, beam, 0, "")
                    row.weight_bytes = loaded.weight_bytes
                    row.command = command_for(row, candidate, settings)
                    runs.append(Run(row, candidate, loaded, {}, []))
    return runs


def _translate(runs, lengths, rounds, devices):
    """Fill in the outputs and decoding times of all runs."""
    # Runs that are similar follow each other, and so are compared at the same moment.
    similar = sorted(runs, key=lambda run: (run.row.engine, run.row.beam))
    groups = [
        (
            [run for run in similar if run.row.device == device.type],
            timing_chunks(lengths, device),
        )
        for device in devices
    ]
    times = len(runs) * (rounds + 1)
    tokens, sentences = int(lengths.sum(dtype=np.int64)) * times, len(lengths) * times
    with WorkProgress(tokens, sentences, desc="translating") as progress:

        def add(ids):
            progress.add(lengths[ids].sum(dtype=np.int64), len(ids))

        for group, chunks in groups:
            results = decode_in_turns([run.decode for run in group], chunks, rounds, add)
            for run, (outputs, seconds) in zip(group, results):
                run.outputs.update(outputs)
                run.row.seconds = seconds
                run.row.tokens = sum(len(tokens) for tokens, _ in outputs.values())


def _texts(run, detokenise):
    """The translations as text, in the order of the split."""
    missing = [i for i in range(len(run.candidate.split)) if i not in run.outputs]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(run.candidate.split)} sentences have no translation by "
            f"{run.row.model!r} with {run.row.engine}, the first is line {missing[0] + 1}: "
            "a score over the others would mislead"
        )
    return [detokenise.text(run.outputs[i][0]) for i in range(len(run.outputs))]


def _score(report, runs, references, lengths):
    """Fill in all scores, and the gains over the baseline."""
    groups = group_by_length(lengths)
    report.length_groups = [bounds for bounds, _ in groups]
    for run in runs:
        report.signatures = score_row(run.row, run.texts, references)
        run.row.bleu_by_length = [subset_bleu(ids, run.texts, references) for _, ids in groups]
    (baseline,) = [run for run in runs if run.row is report.baseline]
    for run in runs:
        if run is not baseline:
            run.row.gain = bleu_gain(run.texts, baseline.texts, references)


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
