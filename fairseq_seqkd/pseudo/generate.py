"""Fills a store: the teacher translates a split, chunk by chunk."""

import contextlib
import functools
import itertools
import logging
import os
from dataclasses import asdict

import numpy as np
import torch

from fairseq_seqkd.chunked.fill import fill_chunks, missing_chunks
from fairseq_seqkd.chunked.plan import chunk_size
from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.decoding.agreement import GREEDY, compare_engines
from fairseq_seqkd.decoding.engines import ENGINES
from fairseq_seqkd.decoding.fairseq_engine import FairseqEngine
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.io.locks import wait_until
from fairseq_seqkd.pseudo.selectors import SELECTORS
from fairseq_seqkd.pseudo.store import NBest, PseudoTargetStore
from fairseq_seqkd.pseudo.target_spec import check_target_spec, pairs_without_ids
from fairseq_seqkd.teacher import SOURCE_ENTRY

logger = logging.getLogger(__name__)

_REMEDY = (
    "fairseq-seqkd generate --engine fairseq --overwrite translates with any model; --no-check "
    "takes this one as it is."
)


def open_store(root, split, spec, recipe):
    """Open the store at ``root`` and check it, or create it.

    Args:
        root: the store's folder
        split: `PairSplit`
        spec: `TargetSpec` of the data-bin that is to be built from it
        recipe: `Recipe`
    Raises:
        FileNotFoundError: there is no store, and no teacher to make one with
        ValueError: the store was made from other data or with other settings; or the
            recipe or the specification cannot be satisfied
    """
    _refuse_databin(root)
    store = PseudoTargetStore(root)
    spec.selector.check(store)
    if not store.exists:
        create_store(store, split, spec, recipe)
        return store
    expected = _expected_manifest(store, split, recipe)
    store.check(expected, exact=[name for name in expected if name == SOURCE_ENTRY])
    manifest = store.manifest
    has_scores = manifest.get("import", {}).get("format") != "plain text"
    check_target_spec(spec, split, manifest["search"]["nbest"], has_scores)
    return store


def _refuse_databin(root):
    """Refuse a store's data-bin in place of the store."""
    path = os.path.join(root, "target_spec.json")
    if not os.path.exists(path):
        return
    report = read_json(path)
    why = (
        "is a data-bin of a store, and not a store: expected the folder that it lies in, "
        f"{os.path.dirname(os.path.abspath(root))!r}."
    )
    if report.get("keep"):
        why = pairs_without_ids(report)
    raise ValueError(f"--pseudo-targets: {root!r} {why}")


def _expected_manifest(store, split, recipe):
    expected = {**split.describe(), "search": recipe.search, "engine": dict(recipe.engine)}
    if expected["engine"].get("name") == "auto":
        expected["engine"]["name"] = None
    if recipe.fits(store.manifest):
        # A finished store can be used after its teacher was deleted.
        with contextlib.suppress(FileNotFoundError):
            expected["teacher"] = recipe.teacher_sha256()
            expected[SOURCE_ENTRY] = recipe.describe_source(split)
    return expected


def create_store(store, split, spec, recipe):
    """Write the manifest of a new store; arguments as for `open_store`."""
    if not recipe.has_teacher:
        raise FileNotFoundError(
            f"--pseudo-targets: there is no store at {store.root!r}. fairseq-seqkd generate "
            "makes one, and so does a training before it begins, both with --teacher-path "
            "CHECKPOINT; or name the folder of a finished one."
        )
    teacher = recipe.teacher_sha256()
    search = new_search(spec.selector.name, recipe.search, recipe.seed)
    check_target_spec(spec, split, search.nbest)
    recipe.sources(split)
    source = {SOURCE_ENTRY: recipe.describe_source(split)} if recipe.load_sources else {}
    store.create(
        {
            **split.describe(),
            **source,
            "teacher": teacher,
            "search": asdict(search),
            "engine": recipe.resolve_engine(store, split, search),
            "chunk_size": chunk_size(len(split)),
        }
    )


def new_search(selector, search, seed=1):
    """The `SearchOptions` of a new store; by default the whole beam is kept.

    Args:
        selector: its name, in ``SELECTORS``
        search: values by name; None takes the default
        seed: of the samples
    """
    given = {key: value for key, value in search.items() if value is not None}
    # The best of several samples would not be a sample of the teacher's distribution.
    one_sample = given.get("sampling") and selector == "best"
    beam = given.get("beam", 1 if one_sample else SELECTORS[selector].beam)
    return SearchOptions(**{"beam": beam, "nbest": beam, "seed": seed, **given})


def translate(store, split, recipe, worker):
    """Translate the missing and damaged chunks of this worker.

    Args:
        store: `PseudoTargetStore`
        split, recipe: as for `open_store`
        worker: `Worker`
    Raises:
        FileNotFoundError: chunks are missing, and there is no teacher
    """
    chunks = store.plan(split.dataset.src_sizes)
    missing, mine = missing_chunks(store, len(chunks), worker)
    if missing:  # on every rank, so that none waits for another in vain
        check_can_translate(store, recipe, len(missing), len(chunks))
    if not mine:
        return
    search = SearchOptions(**store.manifest["search"])
    engine = recipe.build_engine(store, split, store.manifest["engine"], search)
    if 0 in mine and recipe.check and recipe.load_teacher and not store.is_checked:
        check_engine(store, split, recipe, engine, chunks[0])
    n_sentences = sum(len(chunks[index]) for index in mine)
    logger.info("%s translates %d sentences: %s", engine.name, n_sentences, search)
    start = functools.partial(start_translating, engine, recipe.sources(split))
    fill_chunks(store, chunks, mine, start, worker, split.dataset.src_sizes)
    recipe.report()


def check_engine(store, split, recipe, engine, ids):
    """Compare a converted teacher's translations with fairseq's, and record the outcome.

    Both decode greedily: the model is compared, and not how a beam search ends.

    Args:
        store, split, recipe: as for `translate`
        engine: the store's engine; nothing is compared unless it is CTranslate2
        ids: sentence ids, of which some are translated
    Raises:
        Disagreement: they differ too much
    """
    if engine.name != "ctranslate2":
        return
    settings = store.manifest["engine"]
    is_quantised = settings["compute_type"] != "float32"
    teacher = recipe.load_teacher(recipe.device, torch.float32)
    original = FairseqEngine(teacher, GREEDY, keep_unfinished=True)
    converted = own = engine.with_search(GREEDY, keep_unfinished=True)
    if is_quantised:
        exact = {**settings, "compute_type": "float32"}
        float32 = recipe.build_engine(store, split, exact, GREEDY)
        converted = float32.with_search(GREEDY, keep_unfinished=True)
    sources = recipe.sources(split)
    lengths = sources.src_sizes[ids]
    ids = ids[(lengths > 1) & (lengths <= engine.max_source_positions)]
    quantised = own if is_quantised else None
    agreement = compare_engines(original, converted, quantised, sources, ids)
    logger.info("CTranslate2: %s", agreement)
    agreement.refuse(_REMEDY)
    store.write_check(agreement._asdict())


def translate_remaining(store, split, recipe):
    """Translate all missing and damaged chunks, also those of other workers.

    Args and errors as for `translate`.
    """
    translate(store, split, recipe, Worker())


def check_can_translate(store, recipe, missing, n_chunks):
    """Refuse to translate without a teacher.

    Raises:
        FileNotFoundError: says how the store can be finished
    """
    unfinished = (
        f"the store {store.root!r} is not finished ({missing} of {n_chunks} chunks are missing)"
    )
    if "import" in store.manifest:
        raise FileNotFoundError(
            f"--pseudo-targets: {unfinished}, and came from an import: run fairseq-seqkd "
            "import again with the same files to finish it."
        )
    if not recipe.fits(store.manifest):
        is_ours = store.manifest["engine"]["name"] in ENGINES
        teacher = "--teacher-path CHECKPOINT as well, to a training or to"
        if not is_ours:
            teacher = "--teacher-ct2 FOLDER and what else it was begun with, to"
        raise FileNotFoundError(
            f"--pseudo-targets: {unfinished}. Give {teacher} fairseq-seqkd generate, to finish "
            "it first."
        )


def start_translating(engine, dataset, ids):
    """Start to translate; an engine that works in the background gets all sentences at once.

    Args:
        engine: see ``decoding/engines.py``
        dataset: the split's LanguagePairDataset
        ids: (n,) sentence ids
    Returns:
        an iterator over the `NBest` of each sentence, in any order
    """
    lengths = engine.source_lengths(dataset, ids)
    statuses = np.select(
        [lengths <= 1, lengths > engine.max_source_positions],  # 1: EOS only
        ["empty source", "source too long"],
        "translated",
    )
    skipped = [
        NBest(id_, status, [])
        for id_, status in zip(ids.tolist(), statuses.tolist())
        if status != "translated"
    ]
    decoded = engine(dataset, ids[statuses == "translated"])
    return itertools.chain(skipped, itertools.starmap(NBest.from_hypotheses, decoded))


def wait_for_chunks(store, split):
    """Return once the chunks of all workers are there."""
    wait_until(
        lambda: not chunks_left(store, split),
        f"other processes, which have chunks of {store.root!r} to translate. If one of them "
        "died, stop this one and start it again: finished chunks are kept.",
    )


def chunks_left(store, split, worker=None):
    """The number of missing chunks; see `ChunkedStore.n_missing`."""
    return store.n_missing(store.n_chunks(len(split)), worker or Worker())
