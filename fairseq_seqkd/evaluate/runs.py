"""Every way in which every model decodes: what a row of the report is made from."""

import os
from typing import List, NamedTuple

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


class SeedRun(NamedTuple):
    """A checkpoint that decodes in one way, and its output.

    Attributes:
        candidate: `Candidate`
        loaded: `LoadedModel`
        search: `SearchOptions`
        outputs: {id: (tokens, log-probability)}
        texts: the translations in the order of the splits
    """

    candidate: Candidate
    loaded: LoadedModel
    search: SearchOptions
    outputs: dict
    texts: list

    def decode(self, ids):
        return self.loaded.decode(self.candidate.dataset, ids, self.search)


class Run(NamedTuple):
    """A row of the report, to be filled in, and a `SeedRun` for each of its checkpoints."""

    row: Row
    seeds: List[SeedRun]


def prepare_runs(candidates, settings, devices, folder, notes):
    """A `Run` for every model, device, engine and beam; what cannot be used is noted.

    Args:
        candidates: {name: [`Candidate`, ...]}
        settings: `Settings`
        devices: torch devices
        folder: for converted models
        notes: list of remarks, to be added to
    """
    first = next(iter(candidates.values()))[0]
    tuner = settings.tune_lenpen and LengthPenaltyTuner(settings, first)
    runs = []
    for number, (name, seeds) in enumerate(candidates.items()):
        beams = settings.beams_of(seeds[0])
        ways = []  # of each seed: {(device, engine, beam): (SeedRun, {length penalty: BLEU})}
        for seed, candidate in enumerate(seeds):
            subfolder = os.path.join(folder, f"{number}-{seed}")
            loaded_models = _load_everywhere(candidate, settings, devices, subfolder, notes)
            bleu = tuner(candidate, loaded_models) if tuner and max(beams) > 1 else {}
            ways.append(_ways_of(candidate, loaded_models, bleu, settings))
        for way in ways[0]:
            if all(way in others for others in ways):
                runs.append(_new_run(name, way, [others[way] for others in ways], settings))
    return runs


def _load_everywhere(candidate, settings, devices, folder, notes):
    """{(device, engine name): `LoadedModel`}; what cannot be used is noted."""
    loaded_models = {}
    for device in devices:
        found, new_notes = load_into_engines(
            *(settings.engines, candidate, device, torch.get_num_threads()),
            *(os.path.join(folder, device.type), settings.iterations),
        )
        notes.extend(note for note in new_notes if note not in notes)
        loaded_models.update({(device, engine): loaded for engine, loaded in found.items()})
    return loaded_models


def _ways_of(candidate, loaded_models, bleu, settings):
    """All ways in which a checkpoint decodes.

    Args:
        bleu: {beam: {length penalty: BLEU}}; empty if it was not tuned
    Returns:
        {(device, engine name, beam): (`SeedRun`, {length penalty: BLEU})}
    """
    ways = {}
    for (device, engine), loaded in loaded_models.items():
        for beam in settings.beams_of(candidate):
            tuned_on = bleu.get(beam, {})
            search = settings.search(beam, best_length_penalty(tuned_on) if tuned_on else None)
            ways[device, engine, beam] = SeedRun(candidate, loaded, search, {}, []), tuned_on
    return ways


def _new_run(name, way, seeds, settings):
    """The `Run` of one way; ``seeds`` are values of `_ways_of`."""
    (device, engine, beam), threads = way, torch.get_num_threads()
    weight_bytes = seeds[0][0].loaded.weight_bytes
    row = Row(name, engine, device.type, threads, beam, weight_bytes, "")
    if seeds[0][0].candidate.is_refining:
        row.iterations = settings.iterations
    row.seeds = [
        Seed(seed.candidate.path, seed.search.lenpen, {str(x): y for x, y in tuned_on.items()})
        for seed, tuned_on in seeds
    ]
    runs = [seed for seed, _ in seeds]
    row.command = command_for(row, runs[0].candidate, runs[0].search, settings)
    return Run(row, runs)


def translate(runs, lengths, rounds, devices):
    """Fill in the outputs of all runs, and the decoding times of their first seeds.

    Args:
        runs: `Run` list
        lengths: (sentences,) source lengths in tokens
        rounds: number of timed rounds
        devices: torch devices
    """
    # Runs that are similar follow each other, and so are compared at the same moment.
    similar = sorted(runs, key=lambda run: (run.row.engine, run.row.beam))
    times = sum(rounds + len(run.seeds) for run in runs)
    tokens, sentences = int(lengths.sum(dtype=np.int64)) * times, len(lengths) * times
    with WorkProgress(tokens, sentences, desc="translating") as progress:

        def add(ids):
            progress.add(lengths[ids].sum(dtype=np.int64), len(ids))

        for device in devices:
            group = [run for run in similar if run.row.device == device.type]
            chunks = timing_chunks(lengths, device)
            _translate_in_turns(group, chunks, rounds, add)
            for seed in [seed for run in group for seed in run.seeds[1:]]:
                for ids in chunks:
                    seed.outputs.update(seed.decode(ids))
                    add(ids)


def _translate_in_turns(runs, chunks, rounds, add):
    """Translate with the first seeds of some runs, timed in turns."""
    firsts = [run.seeds[0] for run in runs]
    results = decode_in_turns([seed.decode for seed in firsts], chunks, rounds, add)
    for run, seed, (outputs, seconds) in zip(runs, firsts, results):
        seed.outputs.update(outputs)
        run.row.seconds = seconds
        run.row.tokens = sum(len(tokens) for tokens, _ in outputs.values())


def texts_of(seed, row, corpus):
    """The translations of a `SeedRun` of a row as text, in the order of the corpus.

    Raises:
        ValueError: a sentence has none
    """
    missing = [i for i in range(len(corpus)) if i not in seed.outputs]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(corpus)} sentences have no translation by {row.model!r} "
            f"with {row.engine}, the first is {corpus.locate(missing[0])}: a score over the "
            "others would mislead"
        )
    return [seed.candidate.detokenise.text(seed.outputs[i][0]) for i in range(len(corpus))]
