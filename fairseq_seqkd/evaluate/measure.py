"""Translates a split with every model, engine and beam, and measures what came out."""

import os
import tempfile
from dataclasses import dataclass
from typing import List, NamedTuple, Optional

import numpy as np
import torch

from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.evaluate import commands, quality
from fairseq_seqkd.evaluate.candidates import Candidate, references_of
from fairseq_seqkd.evaluate.engines import Engine, check_engine, devices_of, open_all
from fairseq_seqkd.evaluate.report import Model, Report, Row
from fairseq_seqkd.evaluate.speed import pieces_of, take_turns
from fairseq_seqkd.evaluate.versions import versions
from fairseq_seqkd.io.progress import progress_bar
from fairseq_seqkd.models.parameters import nonzero


@dataclass
class Settings:
    """What is to be measured.

    Attributes:
        data, split: the data-bin, and what of it is translated
        data_of: {name: data-bin} of models with other dictionaries, of the same lines
        engines: names, or None for all that can be had
        devices: ``cpu``, ``cuda``; None takes the CPU, and a GPU that is there
        beams: 1 is greedy
        remove_bpe, moses: how tokens become text, see
            `Detokeniser`
        reference_file: one reference a line; None takes the split's gold target
        rounds: how often everything is timed
        threads: of a processor; None as many as torch takes by itself
    """

    data: str
    split: str = "test"
    data_of: Optional[dict] = None
    engines: Optional[List[str]] = None
    devices: Optional[List[str]] = None
    beams: tuple = (1, 5)
    remove_bpe: Optional[str] = None
    moses: Optional[str] = None
    reference_file: Optional[str] = None
    rounds: int = 5
    threads: Optional[int] = None


class Run(NamedTuple):
    """A row, what it decodes with, and what came out."""

    row: Row
    candidate: Candidate
    engine: Engine
    found: dict
    texts: list

    def decode(self, ids):
        return self.engine.decode(self.candidate.split.dataset, ids, self.row.beam)


def evaluate(checkpoints, settings):
    """Compare models on one split.

    Args:
        checkpoints: {name: checkpoint path}; the first is what others are compared with
        settings: `Settings`
    Returns:
        a `Report`
    Raises:
        FileNotFoundError, ValueError: see
            `Candidate`,
            `Detokeniser`,
            `references_of` and
            `engines`; or a line has no translation
    """
    for name in settings.engines or ():
        check_engine(name)
    devices = devices_of(settings.devices)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    candidates = _candidates(checkpoints, settings)
    detokenisers = {
        one.name: Detokeniser(one.dictionary, settings.remove_bpe, settings.moses)
        for one in candidates
    }
    first = candidates[0]
    references = references_of(first, detokenisers[first.name], settings.reference_file)
    report = Report(
        settings.split,
        len(references),
        [_model(candidate) for candidate in candidates],
        [],
        notes=_notes_on_data(candidates) + _notes_on_text(references),
        versions=versions(devices),
    )
    with tempfile.TemporaryDirectory() as folder:
        runs = _open_runs(candidates, settings, devices, folder, report.notes)
        _translate(runs, first, settings.rounds, devices)
    for run in runs:
        run.texts.extend(_texts(run, detokenisers[run.candidate.name]))
    report.rows = [run.row for run in runs]
    _score(report, runs, references, first)
    _look_at_modes(report, runs)
    return report


def _candidates(checkpoints, settings):
    data_of = settings.data_of or {}
    unknown = sorted(set(data_of) - set(checkpoints))
    if unknown:
        raise ValueError(
            f"--data-of: no checkpoint is called {unknown[0]!r}, expected one of "
            f"{', '.join(checkpoints)}"
        )
    candidates = [
        Candidate.load(name, path, data_of.get(name, settings.data), settings.split)
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


def _model(candidate):
    weights = candidate.weights
    return Model(
        *(candidate.name, candidate.path, candidate.split.folder),
        *(sum(tensor.numel() for tensor in weights.values()), nonzero(weights)),
        candidate.file_bytes,
    )


def _notes_on_data(candidates):
    first = candidates[0]
    return [
        f"{other.name} has other dictionaries than {first.name} and reads "
        f"{other.split.folder}: only text is compared, and tokens are not the same units."
        for other in candidates[1:]
        if other.split.folder != first.split.folder
    ]


def _notes_on_text(references):
    found = next((mark for mark in ("▁", "@@ ") if any(mark in r for r in references)), None)
    if found is None:
        return []
    return [
        f"The references have {found.strip()!r} in them: scores are over subwords, and higher "
        "than over text. Join them with --remove-bpe, and give --ref as people write."
    ]


def _open_runs(candidates, settings, devices, folder, notes):
    threads = torch.get_num_threads()
    runs = []
    for number, candidate in enumerate(candidates):
        for device in devices:
            own = os.path.join(folder, f"{number}-{device.type}")
            engines, missing = open_all(settings.engines, candidate, device, threads, own)
            notes.extend(note for note in missing if note not in notes)
            for name, engine in engines.items():
                for beam in settings.beams:
                    row = Row(
                        candidate.name, name, device.type, threads, beam, engine.bytes, ""
                    )
                    row.command = commands.of(row, candidate, settings)
                    runs.append(Run(row, candidate, engine, {}, []))
    return runs


def _translate(runs, first, rounds, devices):
    """Fill in what was found and how long it took."""
    lengths = first.split.dataset.src_sizes
    # What is most alike follows each other, and so is compared at the same moment.
    alike = sorted(runs, key=lambda run: (run.row.engine, run.row.beam))
    groups = [
        ([run for run in alike if run.row.device == device.type], pieces_of(lengths, device))
        for device in devices
    ]
    steps = sum(len(group) * len(pieces) for group, pieces in groups) * (rounds + 1)
    with progress_bar(total=steps, unit=" steps", desc="translating") as bar:
        for group, pieces in groups:
            each = take_turns([run.decode for run in group], pieces, rounds, bar.update)
            for run, (found, seconds) in zip(group, each):
                run.found.update(found)
                run.row.seconds = seconds
                run.row.tokens = sum(len(tokens) for tokens, _ in found.values())


def _texts(run, detokenise):
    """The translations as text, in the order of the split."""
    missing = [i for i in range(len(run.candidate.split)) if i not in run.found]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(run.candidate.split)} sentences have no translation by "
            f"{run.row.model!r} through {run.row.engine}, the first is line {missing[0] + 1}: "
            "a score over the rest would mislead"
        )
    return [detokenise.text(run.found[i][0]) for i in range(len(run.found))]


def _score(report, runs, references, first_candidate):
    groups = quality.groups_by_length(first_candidate.split.dataset.src_sizes)
    report.length_groups = [bounds for bounds, _ in groups]
    for run in runs:
        report.signatures = quality.score(run.row, run.texts, references)
        run.row.bleu_by_length = [
            quality.bleu_of(ids, run.texts, references) for _, ids in groups
        ]
    (first,) = [run for run in runs if run.row is report.first]
    for run in runs:
        if run is not first:
            run.row.difference = quality.difference(run.texts, first.texts, references)


def _look_at_modes(report, runs):
    """How much of a model's probability is where it searches."""
    for model in report.models:
        own = [run for run in runs if run.row.model == model.name]
        engine = min(own, key=lambda run: run.row.engine != "fairseq").row.engine
        own = [run for run in own if run.row.engine == engine]
        largest = max(own, key=lambda run: run.row.beam)
        if largest.row.engine == "fairseq":
            lprobs = np.array([lprob for _, lprob in largest.found.values()])
            model.mode_mass = float(np.exp(lprobs).mean())
        greedy = [run for run in own if run.row.beam == 1]
        if greedy and largest.row.beam > 1:
            same = [
                np.array_equal(greedy[0].found[i][0], largest.found[i][0])
                for i in largest.found
            ]
            model.greedy_is_beam = float(np.mean(same))
