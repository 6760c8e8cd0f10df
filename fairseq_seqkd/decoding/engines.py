"""The two engines that decode, and how a new store takes one.

An engine is a callable from a data set and sentence ids to n-best lists:
``engine(dataset, ids)`` yields (id, hypotheses), every id once, in any order. Hypotheses are a
list of (tokens, score), best first: token ids that end in EOS, and the length-normalised score
in nats. ``engine.max_source_positions`` is the longest source, in tokens with EOS, that it
takes.

An engine's settings stand in the manifest: another process, or a restarted one, decodes alike.
"""

import logging

import torch

from fairseq_seqkd.decoding.ctranslate2_engine import CTranslate2Engine
from fairseq_seqkd.decoding.fairseq_engine import FairseqEngine
from fairseq_seqkd.models.ctranslate2 import EngineUnavailable

logger = logging.getLogger(__name__)

ENGINES = {one.name: one for one in (FairseqEngine, CTranslate2Engine)}


def resolve_engine(asked, search, device, folder, load_teacher):
    """The settings of a new store's engine.

    Args:
        asked: {"name", "compute_type", "max_tokens"}; None takes the default. The default
            name is ``auto``: CTranslate2 if it is installed and can convert the teacher
        search: `SearchOptions`
        device: where it is to run
        folder: where a converted model is kept
        load_teacher: called with a device and a dtype if the teacher has to be converted
    Raises:
        ValueError: CTranslate2 is asked for by name and cannot be used, or a setting is
            not one of the engine's
    """
    name = asked["name"] or "auto"
    given = {key: asked[key] for key in ("compute_type", "max_tokens") if asked[key]}
    if name != "auto":
        try:
            return ENGINES[name].settings(search, device, folder, load_teacher, **given)
        except EngineUnavailable as error:
            raise ValueError(
                f"--engine {name}: {error} (--engine fairseq translates with any model)"
            ) from error
    try:
        settings = CTranslate2Engine.settings(search, device, folder, load_teacher, **given)
        logger.info("translating with CTranslate2")
    except EngineUnavailable as error:
        logger.info("translating with fairseq, not with CTranslate2: %s", error)
        settings = FairseqEngine.settings(search, device, folder, load_teacher, **given)
    return settings


def build_engine(settings, search, device, threads, folder, load_teacher, dictionaries):
    """The engine of a manifest's settings; arguments as for `resolve_engine`, and:

    Args:
        threads: how many of them it may use; None leaves that as it is
        dictionaries: of source and target
    """
    engine = ENGINES[settings["name"]]
    return engine.build(
        settings, search, torch.device(device), threads, folder, load_teacher, dictionaries
    )
