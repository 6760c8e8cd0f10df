"""Loads a model into the engines that decode it, ``fairseq`` and ``ctranslate2:TYPE``.

``ctranslate2:TYPE+shortlist`` is the latter with a vocabulary map.
"""

import os
from typing import Callable, NamedTuple

import torch

from fairseq_seqkd.decoding.agreement import GREEDY
from fairseq_seqkd.decoding.ctranslate2_engine import CTranslate2Engine
from fairseq_seqkd.decoding.fairseq_engine import FairseqEngine
from fairseq_seqkd.decoding.refinement_engine import RefinementEngine
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.evaluate.candidates import CANDIDATE
from fairseq_seqkd.models.ctranslate2 import size_of
from fairseq_seqkd.shortlist.vocabulary_map import FILE
from fairseq_seqkd.teacher import load_teacher

DEFAULT_ENGINES = ("fairseq", "ctranslate2:float32", "ctranslate2:int8")
SHORTLIST = "+shortlist"


class LoadedModel(NamedTuple):
    """A model in an engine, ready to decode.

    Attributes:
        decode: ``decode(dataset, ids, search)`` returns {id: (tokens, log-probability)} of
            the best hypotheses; a non-autoregressive model has no search
        weight_bytes: size of the weights in a file
    """

    decode: Callable
    weight_bytes: int


def check_engines(names, shortlists):
    """Raise a ValueError if there is no such engine, or no shortlist for one that needs it."""
    for name in names:
        _check_engine(name)
        if name.endswith(SHORTLIST) and not shortlists:
            raise ValueError(
                f"--engines {name} needs --shortlist NAME=DATA: from whose pairs the likely "
                "symbols are counted, or a finished vmap.txt"
            )
    if shortlists and names and not any(name.endswith(SHORTLIST) for name in names):
        raise ValueError(
            f"--shortlist has no effect with --engines {' '.join(names)}: expected one such as "
            f"ctranslate2:int8{SHORTLIST} among them"
        )


def _check_engine(name):
    kind, _, compute_type = name.partition(":")
    if not (name == "fairseq" or (kind == "ctranslate2" and _without_shortlist(compute_type))):
        raise ValueError(
            f"--engines: found {name!r}, expected fairseq, or ctranslate2:TYPE with a type "
            f"such as float32 or int8, or ctranslate2:TYPE{SHORTLIST}"
        )


def _without_shortlist(name):
    return name[: -len(SHORTLIST)] if name.endswith(SHORTLIST) else name


def load_into_engine(engine_name, candidate, device, threads, folder, max_iter):
    """Load a model into one engine.

    Args:
        engine_name: ``fairseq``, ``ctranslate2:TYPE`` or ``ctranslate2:TYPE+shortlist``
        candidate: `Candidate`
        device: torch.device
        threads: number of CPU threads
        folder: where a converted model is written
        max_iter: iterations of a non-autoregressive model
    Returns:
        a `LoadedModel`
    Raises:
        ValueError, RuntimeError: the engine cannot decode this model or is not available on
            this machine; gives the reason
    """
    if engine_name == "fairseq":
        return _load_into_fairseq(candidate, device, max_iter)
    compute_type = engine_name.partition(":")[2]
    folder = os.path.join(folder, compute_type)
    return _load_into_ctranslate2(candidate, device, threads, folder, compute_type)


def model_on(candidate, device):
    """The model of a `Candidate`, on a device."""
    if device.type == "cpu":
        return candidate.model
    where = candidate.path, candidate.data, device
    return load_teacher(*where, role=CANDIDATE, languages=candidate.languages)


def _load_into_fairseq(candidate, device, max_iter):
    model = model_on(candidate, device)
    refine = candidate.is_refining and RefinementEngine(model, max_iter)

    def decode(dataset, ids, search):
        engine = refine or FairseqEngine(model, search, keep_unfinished=True)
        return _best_hypotheses(engine(dataset, ids), search)

    weights = candidate.weights.values()
    return LoadedModel(decode, sum(p.numel() * p.element_size() for p in weights))


def _load_into_ctranslate2(candidate, device, threads, folder, compute_type):
    shortlisted, compute_type = compute_type, _without_shortlist(compute_type)
    settings = CTranslate2Engine.resolve_settings(
        SearchOptions(),
        device,
        folder,
        lambda *_: candidate.model,
        compute_type,
        quantization=compute_type,
    )
    if shortlisted != compute_type:
        candidate.shortlist.map.write(os.path.join(folder, "model", FILE))
    task = candidate.model.task
    engine = CTranslate2Engine(
        folder,
        SearchOptions(),
        settings,
        device,
        threads,
        (task.source_dictionary, task.target_dictionary),
        keep_unfinished=True,
    )

    def decode(dataset, ids, search):
        return _best_hypotheses(engine.with_search(search)(dataset, ids), search)

    return LoadedModel(decode, size_of(os.path.join(folder, "model")))


def _best_hypotheses(nbest_lists, search):
    """{id: (tokens, log-probability)} of the best hypotheses, whose scores are normalised."""
    return {
        id_: (hypotheses[0][0], hypotheses[0][1] * len(hypotheses[0][0]) ** search.lenpen)
        for id_, hypotheses in nbest_lists
        if hypotheses
    }


def load_into_engines(engine_names, candidate, device, threads, folder, max_iter):
    """Load a model into several engines.

    Args:
        engine_names: None takes those of `DEFAULT_ENGINES` that can be used, and int8 with a
            shortlist if the model has one, which others with a shortlist need; for a
            non-autoregressive model fairseq's is meant, whatever they are
        candidate, device, threads, folder, max_iter: as for `load_into_engine`
    Returns:
        {engine name: `LoadedModel`}, and a list of notes on the engines that cannot be used
    Raises:
        ValueError: an engine that was asked for by name cannot be used
    """
    loaded_models, notes = {}, []
    if candidate.is_refining and engine_names != ["fairseq"]:
        engine_names = ["fairseq"]
        notes.append(f"{candidate.name} is non-autoregressive: it was run with fairseq alone.")
    for name in _with_shortlist_or_without(engine_names, candidate):
        try:
            loaded = load_into_engine(name, candidate, device, threads, folder, max_iter)
            # A missing GPU library shows only when something is decoded.
            dataset = candidate.dataset
            loaded.decode(dataset, [int(dataset.src_sizes.argmin())], GREEDY)
            loaded_models[name] = loaded
        except (ValueError, RuntimeError) as error:
            if engine_names:
                raise ValueError(f"--engines {name}, {candidate.name!r}: {error}") from error
            notes.append(f"{candidate.name} was not run with {name}: {error}")
    return loaded_models, notes


def _with_shortlist_or_without(engine_names, candidate):
    names = engine_names or [*DEFAULT_ENGINES, DEFAULT_ENGINES[-1] + SHORTLIST]
    return [name for name in names if candidate.shortlist or not name.endswith(SHORTLIST)]


def torch_devices(names):
    """The torch devices of these names.

    Args:
        names: ``cpu``, ``cuda``; None takes the CPU, and a GPU if there is one
    Raises:
        ValueError: ``cuda`` is asked for and torch sees no GPU
    """
    names = dict.fromkeys(names or ["cpu"] + ["cuda"] * torch.cuda.is_available())
    if "cuda" in names and not torch.cuda.is_available():
        raise ValueError("--devices cuda: torch sees no GPU here. Expected cpu.")
    return [torch.device(name) for name in names]
