"""A test of what is fastest on this machine: compute types and batch sizes of CTranslate2.

The process that makes a new store translates some of its sentences with each, and notes the
fastest in the manifest, which all processes follow.
"""

import logging
import time
from typing import Any, Dict, List, NamedTuple

import numpy as np

from fairseq_seqkd.decoding.agreement import best_hypotheses, evenly_spread, token_bleu
from fairseq_seqkd.decoding.ctranslate2_engine import compute_types_of

logger = logging.getLogger(__name__)

# A store of fewer sentences is finished before a test would have paid.
LEAST_SENTENCES = 5000
_ONE_IN, _MOST = 200, 512  # of the sentences, one in so many, and at most so many
_FACTORS = (0.5, 2.0)  # of the default batch size
# With a BLEU below this against the default's translations, nothing is taken, however fast.
_LEAST_BLEU = 90
# The default stands unless something is faster by this factor.
_LEAST_SPEEDUP = 1.05


class Trial(NamedTuple):
    """Some sentences, translated with some settings.

    Attributes:
        value: of the setting that is tried
        speed: sentences a second
        hypotheses: {id: token ids of the best hypothesis}
    """

    value: Any
    speed: float
    hypotheses: Dict[int, List[int]]


def with_fastest(settings, given, build, dataset, device):
    """Settings with the fastest compute type and batch size.

    Args:
        settings: the manifest's entry ``engine``, with defaults
        given: names of the settings that the user gave, which stay
        build: makes an engine of settings
        dataset: the split; if it is small, nothing is tried
        device: torch.device
    Returns:
        the settings, some of them with other values
    """
    if len(dataset) < LEAST_SENTENCES:
        return settings
    batch = settings["max_tokens"]
    candidates = {
        "compute_type": compute_types_of(device),
        "max_tokens": [int(factor * batch) for factor in _FACTORS],
    }
    ids = evenly_spread(np.arange(len(dataset)), min(_MOST, len(dataset) // _ONE_IN))
    for name, others in candidates.items():
        if name not in given:
            values = dict.fromkeys([settings[name], *others])
            tried = ({**settings, name: value} for value in values)
            trials = [_trial(one[name], build(one), dataset, ids) for one in tried]
            settings = {**settings, name: fastest(name, trials)}
    return settings


def _trial(value, engine, dataset, ids):
    lengths = engine.source_lengths(dataset, ids)
    ids = ids[(lengths > 1) & (lengths <= engine.max_source_positions)]
    best_hypotheses(engine, dataset, ids[:8])  # warms up
    begin = time.perf_counter()
    hypotheses = best_hypotheses(engine, dataset, ids)
    return Trial(value, len(ids) / (time.perf_counter() - begin), hypotheses)


def fastest(name, trials):
    """The value of the fastest trial that translates as the first one, which is the default.

    Args:
        name: of the setting
        trials: list of `Trial`
    """
    default, *others = trials
    taken, needed = default, _LEAST_SPEEDUP * default.speed
    for trial in others:
        bleu = token_bleu(trial.hypotheses, default.hypotheses)
        if bleu >= _LEAST_BLEU and trial.speed > needed:
            taken, needed = trial, trial.speed
        logger.info(
            "self-test on %d sentences, %s: %s %.0f/s, %s %.0f/s, BLEU %.1f against the former",
            len(trial.hypotheses),
            name.replace("_", " "),
            *(default.value, default.speed, trial.value, trial.speed, bleu),
        )
    logger.info("%s: %s", name.replace("_", " "), taken.value)
    return taken.value
