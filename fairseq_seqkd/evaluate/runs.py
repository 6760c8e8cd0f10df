"""Every way in which every model decodes: what a row of the report is made from."""

import os
from typing import NamedTuple

import numpy as np
import torch

from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.evaluate.candidates import Candidate
from fairseq_seqkd.evaluate.commands import command_for
from fairseq_seqkd.evaluate.engines import LoadedModel, load_into_engines
from fairseq_seqkd.evaluate.report import Row, Seed
from fairseq_seqkd.evaluate.speed import decode_in_turns, timing_chunks
from fairseq_seqkd.evaluate.tuning import LengthPenaltyTuner, best_length_penalty
from fairseq_seqkd.io.progress import WorkProgress


class Run(NamedTuple):
    """A row with its model and its output.

    Attributes:
        row: the `Row` to fill in
        candidate: `Candidate`
        loaded: `LoadedModel`
        search: `SearchOptions`
        outputs: {id: (tokens, log-probability)}
        texts: the translations in the order of the splits
    """

    row: Row
    candidate: Candidate
    loaded: LoadedModel
    search: SearchOptions
    outputs: dict
    texts: list

    def decode(self, ids):
        return self.loaded.decode(self.candidate.dataset, ids, self.search)


def prepare_runs(candidates, settings, devices, folder, notes):
    """A `Run` for every model, device, engine and beam; what cannot be used is noted."""
    tuner = settings.tune_lenpen and LengthPenaltyTuner(settings, candidates[0])
    runs = []
    for number, candidate in enumerate(candidates):
        subfolder = os.path.join(folder, str(number))
        loaded_models = _load_everywhere(candidate, settings, devices, subfolder, notes)
        bleu = tuner(candidate, loaded_models) if tuner else {}
        runs += [
            _new_run(candidate, *key, loaded, beam, bleu.get(beam, {}), settings)
            for key, loaded in loaded_models.items()
            for beam in settings.beams
        ]
    return runs


def _load_everywhere(candidate, settings, devices, folder, notes):
    """{(device, engine name): `LoadedModel`}; what cannot be used is noted."""
    loaded_models = {}
    for device in devices:
        found, new_notes = load_into_engines(
            *(settings.engines, candidate, device, torch.get_num_threads()),
            os.path.join(folder, device.type),
        )
        notes.extend(note for note in new_notes if note not in notes)
        loaded_models.update({(device, engine): loaded for engine, loaded in found.items()})
    return loaded_models


def _new_run(candidate, device, engine, loaded, beam, lenpen_bleu, settings):
    lenpen = best_length_penalty(lenpen_bleu) if lenpen_bleu else None
    search = settings.search(beam, lenpen)
    threads = torch.get_num_threads()
    row = Row(candidate.name, engine, device.type, threads, beam, loaded.weight_bytes, "")
    row.command = command_for(row, candidate, search, settings)
    tuned_on = {str(value): score for value, score in lenpen_bleu.items()}
    row.seeds = [Seed(candidate.path, search.lenpen, tuned_on)]
    return Run(row, candidate, loaded, search, {}, [])


def translate(runs, lengths, rounds, devices):
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


def texts_of(run, corpus):
    """The translations of a run as text, in the order of the corpus.

    Raises:
        ValueError: a sentence has none
    """
    missing = [i for i in range(len(corpus)) if i not in run.outputs]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(corpus)} sentences have no translation by "
            f"{run.row.model!r} with {run.row.engine}, the first is "
            f"{corpus.locate(missing[0])}: a score over the others would mislead"
        )
    return [run.candidate.detokenise.text(run.outputs[i][0]) for i in range(len(corpus))]
