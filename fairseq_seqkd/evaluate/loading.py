"""Loads all models of an evaluation: under each name one checkpoint, or several seeds."""

import logging
import os
from statistics import mean

from fairseq import utils

from fairseq_seqkd.evaluate.candidates import Candidate
from fairseq_seqkd.evaluate.report import ModelSummary
from fairseq_seqkd.models.parameters import count_nonzero
from fairseq_seqkd.shortlist.source import load_shortlist

logger = logging.getLogger(__name__)


def load_candidates(checkpoints, settings):
    """Load the models of every name.

    Args:
        checkpoints: {name: checkpoint path}; paths of several seeds are separated by commas
        settings: `Settings`
    Returns:
        {name: [`Candidate`, ...]}
    Raises:
        FileNotFoundError, ValueError: as for `Candidate.load` and `Candidate.set_text`; the
            data-bins have different lines; the seeds of a name are no such; or iterations are
            asked for that no model has
    """
    data_of, shortlists = settings.data_of or {}, settings.shortlists or {}
    _check_names("--data-of", data_of, checkpoints)
    _check_names("--shortlist", shortlists, checkpoints)
    candidates, first = {}, None
    for name, paths in checkpoints.items():
        candidates[name] = []
        for path in seed_paths(name, paths):
            where = data_of.get(name, settings.data), settings.split_names
            candidate = Candidate.load(name, path, *where, settings.languages)
            candidate.set_text(settings.remove_bpe, settings.moses, settings.spm_model)
            first = first or candidate
            _check_same_lines(candidate, first)
            candidates[name].append(candidate)
        _check_same_size(name, candidates[name])
        _set_shortlist(candidates[name], shortlists.get(name))
    _check_iterations(candidates, settings)
    return candidates


def _check_names(flag, named, checkpoints):
    unknown = sorted(set(named) - set(checkpoints))
    if unknown:
        raise ValueError(
            f"{flag}: no checkpoint is called {unknown[0]!r}, expected one of "
            f"{', '.join(checkpoints)}"
        )


def _set_shortlist(seeds, path):
    """Give all seeds of a name the map that belongs to their dictionaries."""
    if path is not None:
        shortlist = load_shortlist(path, seeds[0].model.task)
        logger.info("%s: %s", seeds[0].name, shortlist)
        for candidate in seeds:
            candidate.shortlist = shortlist


def _check_iterations(candidates, settings):
    if settings.max_iter is not None and not any(
        seeds[0].is_refining for seeds in candidates.values()
    ):
        raise ValueError(
            "--iter-decode-max-iter has no effect: none of the models is non-autoregressive "
            "(trained with the task translation_lev)"
        )


def seed_paths(name, paths):
    """The checkpoints of a name's seeds.

    Args:
        name: of the model
        paths: separated by commas; a path that exists may have commas in it
    Raises:
        ValueError: a checkpoint is there twice
    """
    if any("," in path and os.path.exists(path) for path in utils.split_paths(paths)):
        return [paths]
    seeds = paths.split(",")
    twice = [path for path in seeds if seeds.count(path) > 1]
    if twice:
        raise ValueError(
            f"--checkpoints: {name!r} has {twice[0]!r} twice, expected checkpoints of "
            "trainings with different seeds"
        )
    return seeds


def _check_same_lines(candidate, first):
    for split, expected in zip(candidate.splits, first.splits):
        if len(split) != len(expected):
            raise ValueError(
                f"--data-of {candidate.name}: {split.folder!r} has {len(split)} lines in "
                f"{split.name!r}, expected the {len(expected)} of {expected.folder!r}: the "
                "same text, binarised with other dictionaries"
            )


def _check_same_size(name, candidates):
    first, *others = candidates
    for other in others:
        if other.parameters != first.parameters:
            raise ValueError(
                f"--checkpoints: {name!r} has {first.parameters:,} parameters in "
                f"{first.path!r} and {other.parameters:,} in {other.path!r}, expected one "
                "model trained with several seeds. Give models of different sizes a name each."
            )


def summarise(name, candidates):
    """The `ModelSummary` of a name; of several seeds the means."""
    return ModelSummary(
        *(name, ",".join(candidate.path for candidate in candidates), candidates[0].data),
        parameters=candidates[0].parameters,
        nonzero_parameters=round(mean(count_nonzero(one.weights) for one in candidates)),
        checkpoint_bytes=round(mean(one.checkpoint_bytes for one in candidates)),
    )


def notes_on_data(candidates):
    """Remarks on models whose data-bin is another than the first model's."""
    first, *others = [seeds[0] for seeds in candidates.values()]
    return [
        f"{other.name} has other dictionaries than {first.name} and uses the data-bin "
        f"{other.data}: compare their scores, which are on text, but not their numbers "
        "of tokens."
        for other in others
        if other.data != first.data
    ]
