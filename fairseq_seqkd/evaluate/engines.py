"""What decodes a model, named ``fairseq`` or ``ctranslate2:TYPE``.

An opened engine is an `Engine`: ``decode(dataset, ids, beam)`` returns
{id: (tokens, log-probability)}.
"""

import os
from typing import Callable, NamedTuple

import torch

from fairseq_seqkd.decoding.ctranslate2_engine import CTranslate2Engine
from fairseq_seqkd.decoding.fairseq_engine import FairseqEngine
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.models.ctranslate2 import size_of
from fairseq_seqkd.teacher import load_teacher

DEFAULT_ENGINES = ("fairseq", "ctranslate2:float32", "ctranslate2:int8")


class Engine(NamedTuple):
    """A model that is ready to decode.

    Attributes:
        decode: see above
        bytes: of its weights, in a file
    """

    decode: Callable
    bytes: int


def check_engine(name):
    """Refuse a name that is none."""
    kind, _, compute_type = name.partition(":")
    if not (name == "fairseq" or (kind == "ctranslate2" and compute_type)):
        raise ValueError(
            f"--engines: found {name!r}, expected fairseq, or ctranslate2:TYPE with a type "
            "such as float32 or int8"
        )


def open_engine(name, candidate, device, threads, folder):
    """Make a model ready.

    Args:
        name: of the engine
        candidate: `Candidate`
        device: torch.device
        threads: of a processor
        folder: for what has to be converted
    Raises:
        ValueError, RuntimeError: it cannot be had for this model, or here; says why
    """
    if name == "fairseq":
        return _fairseq(candidate, device)
    return _ctranslate2(candidate, device, threads, folder, name.partition(":")[2])


def _fairseq(candidate, device):
    model = candidate.model
    if device.type != "cpu":
        model = load_teacher(candidate.path, candidate.split.folder, device)

    def decode(dataset, ids, beam):
        engine = FairseqEngine(model, SearchOptions(beam=beam), unfinished=True)
        return _best(engine(dataset, ids))

    weights = candidate.weights.values()
    return Engine(decode, sum(p.numel() * p.element_size() for p in weights))


def _ctranslate2(candidate, device, threads, folder, compute_type):
    settings = CTranslate2Engine.settings(
        SearchOptions(),
        device,
        os.path.join(folder, compute_type),
        lambda *_: candidate.model,
        compute_type,
        quantization=compute_type,
    )
    task = candidate.model.task
    engine = CTranslate2Engine(
        os.path.join(folder, compute_type),
        SearchOptions(),
        settings,
        device,
        threads,
        (task.source_dictionary, task.target_dictionary),
        unfinished=True,
    )

    def decode(dataset, ids, beam):
        return _best(engine.with_search(SearchOptions(beam=beam))(dataset, ids))

    return Engine(decode, size_of(os.path.join(folder, compute_type, "model")))


def _best(found):
    """{id: (tokens, log-probability)} of the best hypotheses; a score is a mean over tokens."""
    return {
        id_: (hypotheses[0][0], hypotheses[0][1] * len(hypotheses[0][0]))
        for id_, hypotheses in found
        if hypotheses
    }


def open_all(names, candidate, device, threads, folder):
    """Every engine that can be had, and what to say of the others.

    Args:
        names: None takes `DEFAULT_ENGINES` as far as they can be had
        candidate, device, threads, folder: as for `open_engine`
    Returns:
        {name: `Engine`}, and a list of notes
    Raises:
        ValueError: one that is asked for by name cannot be had
    """
    engines, notes = {}, []
    for name in names or DEFAULT_ENGINES:
        try:
            engine = open_engine(name, candidate, device, threads, folder)
            # What a GPU's libraries lack shows when something is decoded.
            dataset = candidate.split.dataset
            engine.decode(dataset, [int(dataset.src_sizes.argmin())], 1)
            engines[name] = engine
        except (ValueError, RuntimeError) as error:
            if names:
                raise ValueError(f"--engines {name}, {candidate.name!r}: {error}") from error
            notes.append(f"{candidate.name} was not run through {name}: {error}")
    return engines, notes


def devices_of(names):
    """torch's devices of these names; None takes the CPU, and a GPU that is there.

    Raises:
        ValueError: a GPU is asked for that torch does not see
    """
    names = dict.fromkeys(names or ["cpu"] + ["cuda"] * torch.cuda.is_available())
    if "cuda" in names and not torch.cuda.is_available():
        raise ValueError("--devices cuda: torch sees no GPU here. Expected cpu.")
    return [torch.device(name) for name in names]
