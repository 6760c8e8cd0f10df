"""What decodes. A backend is a callable from a data set and sentence ids to n-best lists.

backend(dataset, ids) yields (id, hypotheses), every id once, in any order;
hypotheses is a list of (tokens, score), best first: token ids that end in EOS, and
the length-normalised score in nats. ``backend.max_source_positions`` is the longest
source, in tokens with EOS, that can be translated.

A backend's settings are what the manifest says of it: with them another process, or a
restarted one, decodes alike.
"""

import logging

import torch

from fairseq_seqkd.pseudo.backends.ctranslate2 import CannotConvert, CTranslate2Backend
from fairseq_seqkd.pseudo.backends.fairseq import FairseqBackend

logger = logging.getLogger(__name__)

BACKENDS = {one.name: one for one in (FairseqBackend, CTranslate2Backend)}


def choose_backend(wanted, search, device, folder, load_teacher):
    """The settings of a new store's backend.

    Args:
        wanted: {"name", "compute_type", "max_tokens"}; None takes the default. The default
            name is ``auto``: CTranslate2 if it is installed and can convert the teacher
        search: :class:`~fairseq_seqkd.search.SearchOptions`
        device: where it is to run
        folder: where a converted model is kept
        load_teacher: called if the teacher has to be converted
    Raises:
        ValueError: CTranslate2 is asked for by name and cannot be had, or a setting is
            not one of the backend's
    """
    name = wanted["name"] or "auto"
    given = {key: wanted[key] for key in ("compute_type", "max_tokens") if wanted[key]}
    if name != "auto":
        try:
            return BACKENDS[name].settings(search, device, folder, load_teacher, **given)
        except CannotConvert as error:
            raise ValueError(
                f"--backend {name}: {error} (--backend fairseq translates with any model)"
            ) from error
    try:
        settings = CTranslate2Backend.settings(search, device, folder, load_teacher, **given)
        logger.info("translating with CTranslate2")
    except CannotConvert as error:
        logger.info("translating with fairseq, not with CTranslate2: %s", error)
        settings = FairseqBackend.settings(search, device, folder, load_teacher, **given)
    return settings


def build_backend(settings, search, device, threads, folder, load_teacher, dictionaries):
    """The backend that a manifest describes; arguments as for :func:`choose_backend`.

    Args:
        threads: how many of them it may use; None leaves that as it is
        dictionaries: of source and target
    """
    backend = BACKENDS[settings["name"]]
    return backend.build(
        settings, search, torch.device(device), threads, folder, load_teacher, dictionaries
    )
