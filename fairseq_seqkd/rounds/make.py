"""Makes a round: the student generates, the teacher scores, pairs are mixed and filtered.

Every step ends in a folder or in chunks that are whole or not there, so that a round goes on
where it was. Workers divide the sentences of both models; what is left is done by one of them,
while the others wait.
"""

import os

import numpy as np
import torch

from fairseq_seqkd.cache.build import fill, open_cache, seal
from fairseq_seqkd.cache.sentences import CachedSentences
from fairseq_seqkd.cache.store import DistributionCache
from fairseq_seqkd.cache.subset import copy_cache
from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.databin import Split, open_split
from fairseq_seqkd.io.files import write_json
from fairseq_seqkd.io.locks import make_folder_once, wait_until
from fairseq_seqkd.pseudo.build_databin import build_databin
from fairseq_seqkd.pseudo.generate import (
    open_store,
    translate,
    translate_remaining,
    wait_for_chunks,
)
from fairseq_seqkd.pseudo.pairs import SPLIT, write_pairs
from fairseq_seqkd.pseudo.selectors import Best
from fairseq_seqkd.pseudo.target_spec import TargetSpec
from fairseq_seqkd.pseudo.unfinished import check_unfinished
from fairseq_seqkd.rounds.report import PAIRS, describe, n_generated

# Purposes of random numbers, beside the seed.
_SOURCES, _MIXED = 1, 2


def make_round(round_, split, other, models, worker, accept_unfinished=None):
    """Make what a round lacks.

    Args:
        round_: `Round`
        split, other: `PairSplit` with the sources, and with the pairs that may be mixed in
        models: `RoundModels`
        worker: `Worker`; all of them return once the round is finished
        accept_unfinished: see `check_unfinished`
    Returns:
        the content of the round's ``report.json``
    """
    languages = split.source_lang, split.target_lang
    sources = draw_sources(round_, split)
    best = generate(round_, sources, models, worker)
    check_unfinished(best, accept_unfinished, "student")
    join(round_, open_split(best, SPLIT, *languages), other)
    scored = score(round_, models, languages, worker)
    kept = filter_by_score(round_, scored)
    if round_.filters_scores:
        keep_pairs(round_, scored, kept, models, languages)
    report = describe(round_, best, scored, kept, models)
    write_json(round_.path("report.json"), report)
    return report


def draw_sources(round_, split):
    """The `PairSplit` of the sentences that the student translates: all, or a random part."""
    number = round_.options["sentences"]
    if number is None:
        return split
    ids = np.sort(_permutation(round_, _SOURCES, len(split))[:number])
    folder = round_.path("sources")
    make_folder_once(folder, lambda new: write_pairs(new, [split], [ids]))
    return open_split(folder, SPLIT, split.source_lang, split.target_lang)


def _permutation(round_, purpose, size):
    """(size,) random ids, each once; RandomState's numbers are the same in every numpy."""
    return np.random.RandomState([round_.options["seed"], purpose]).permutation(size)


def generate(round_, sources, models, worker):
    """Translate the sources by the student; returns the data-bin of its hypotheses.

    Sentences without a hypothesis keep their gold target.
    """
    ratio = round_.options["filter_length_ratio"]
    filters = {"length_ratio": ratio}
    spec = TargetSpec(Best(), filters, drop=True, measures_quality=False)
    recipe = models.recipe(round_, sources.task)
    store = open_store(round_.path("student"), sources, spec, recipe)
    translate(store, sources, recipe, worker)
    wait_for_chunks(store, sources)
    if mends_others(worker):
        translate_remaining(store, sources, recipe)
    return build_databin(store, sources, spec)


def mends_others(worker):
    """Whether a process looks for damaged chunks of all others: the first of several does."""
    return worker.world_size > 1 and worker.rank == 0


def join(round_, generated, other):
    """Write the data-bin that the teacher scores: the student's pairs, then those mixed in.

    Args:
        round_: `Round`
        generated: `PairSplit` of the student's pairs
        other: `PairSplit` of which pairs are drawn, each as often as the others, or once more
    """
    fraction, size = round_.options["mix_fraction"], len(generated)
    n_mixed = round(fraction / (1 - fraction) * size)
    order = _permutation(round_, _MIXED, len(other))
    ids = [np.arange(size), np.resize(order, n_mixed)]

    def write(folder):
        n_splits = 2 if n_mixed else 1
        write_pairs(folder, [generated, other][:n_splits], ids[:n_splits])
        write_json(os.path.join(folder, PAIRS), {"student": size, "mixed": n_mixed})

    os.makedirs(round_.scored, exist_ok=True)
    make_folder_once(os.path.join(round_.scored, "data-bin"), write)


def score(round_, models, languages, worker):
    """Score all pairs by the teacher; returns the finished cache as `CachedSentences`."""
    split = _scored_split(os.path.join(round_.scored, "data-bin"), models, languages)
    cache = DistributionCache(os.path.join(round_.scored, "cache"))
    sums = round_.manifest["teacher"]
    open_cache(cache, split, sums, round_.scoring, torch.device(models.device))

    def load(dtype):
        return models.load_teacher(dtype, split.task)

    if models.threads is not None:
        torch.set_num_threads(models.threads)
    fill(cache, split, load, worker)
    wait_until(
        lambda: not cache.chunks.missing(cache.n_chunks(cache.n_scored)),
        f"other processes, which have chunks of {cache.root!r} to score. If one of them died, "
        "stop this one and start it again: finished chunks are kept.",
    )
    if mends_others(worker):
        fill(cache, split, load, Worker())
    seal(cache)
    return CachedSentences(cache)


def _scored_split(folder, models, languages):
    return Split.load_for_scoring(models.teacher, folder, SPLIT, languages)


def filter_by_score(round_, scored):
    """The ids of the scored pairs that the round keeps.

    Of the student's pairs those go whose score by the teacher is among the worst P percent,
    and those that are too long for it. Pairs that were mixed in stay.

    Args:
        round_: `Round`
        scored: `CachedSentences`
    """
    ids, percent = np.arange(len(scored)), round_.options["filter_score_percentile"]
    if percent is None:
        return ids
    scores = scored.scores[: n_generated(round_)]
    # NaN, for the teacher too long, is not above the limit.
    kept = scores >= np.nanpercentile(scores, percent)
    return np.concatenate([np.flatnonzero(kept), ids[len(scores) :]])


def keep_pairs(round_, scored, ids, models, languages):
    """Write the data-bin and the cache of the pairs that are kept, from those of all pairs."""
    everything = open_split(os.path.join(round_.scored, "data-bin"), SPLIT, *languages)
    make_folder_once(round_.databin, lambda new: write_pairs(new, [everything], [ids]))
    split = _scored_split(round_.databin, models, languages)
    make_folder_once(round_.cache, lambda new: copy_cache(new, scored, split, ids))
