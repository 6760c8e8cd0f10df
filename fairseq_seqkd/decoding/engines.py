"""The two decoding engines, and how the engine of a new store is resolved.

An engine is a callable: ``engine(dataset, ids)`` yields (id, hypotheses) for every sentence id,
in any order. Hypotheses are a list of (tokens, score), best first: token ids that end in EOS,
and the length-normalised score in nats. ``engine.max_source_positions`` is the longest source
that it takes, in tokens with EOS; ``engine.source_lengths(dataset, ids)`` gives the lengths of
some sources in these tokens, 1 of an empty one.

The settings of an engine are kept in the store's manifest, so that every process that fills the
store decodes alike.
"""

import logging

import torch

from fairseq_seqkd.decoding.ctranslate2_engine import CTranslate2Engine
from fairseq_seqkd.decoding.fairseq_engine import FairseqEngine
from fairseq_seqkd.models.ctranslate2 import EngineUnavailable

logger = logging.getLogger(__name__)

ENGINES = {engine.name: engine for engine in (FairseqEngine, CTranslate2Engine)}


def resolve_engine(requested, search, device, folder, load_teacher, flag="--engine"):
    """Resolve the engine that is asked for into the settings of a new store.

    Args:
        requested: {"name", "compute_type", "max_tokens"}; None takes the default. The
            default name is ``auto``: CTranslate2 if it is installed and can convert the
            teacher, else fairseq
        search: `SearchOptions`
        device: the device to decode on
        folder: the folder for a converted model
        load_teacher: called with a device and a dtype if the teacher must be converted
        flag: the flag that asks for the engine, for messages
    Returns:
        the manifest's entry ``engine``
    Raises:
        ValueError: CTranslate2 is asked for by name and cannot be used, or the engine does
            not have a setting
    """
    name = requested["name"] or "auto"
    given = {key: requested[key] for key in ("compute_type", "max_tokens") if requested[key]}
    context = (search, device, folder, load_teacher)
    if name == "auto":
        return _resolve_auto(*context, **given)
    try:
        return ENGINES[name].resolve_settings(*context, **given)
    except EngineUnavailable as error:
        raise ValueError(
            f"{flag} {name}: {error} ({flag} fairseq translates with any model)"
        ) from error


def _resolve_auto(*context, **given):
    try:
        settings = CTranslate2Engine.resolve_settings(*context, **given)
        logger.info("translating with CTranslate2")
    except EngineUnavailable as error:
        logger.info("translating with fairseq, not with CTranslate2: %s", error)
        settings = FairseqEngine.resolve_settings(*context, **given)
    return settings


def build_engine(settings, search, device, threads, folder, load_teacher, dictionaries):
    """Build the engine of a manifest's settings.

    Args:
        settings: the manifest's entry ``engine``
        search, device, folder, load_teacher: as for `resolve_engine`
        threads: the number of threads to use; None keeps torch's
        dictionaries: source and target dictionary
    """
    engine = ENGINES[settings["name"]]
    return engine.build(
        settings, search, torch.device(device), threads, folder, load_teacher, dictionaries
    )
