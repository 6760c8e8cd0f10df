"""Fills a store: the teacher translates a split, chunk by chunk."""

import contextlib
import itertools
import logging
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Dict, Optional

import numpy as np

from fairseq_seqkd.chunked.fill import fill_chunks, missing_chunks
from fairseq_seqkd.chunked.plan import chunk_size
from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.decoding.engines import build_engine, resolve_engine
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.io.locks import wait_until
from fairseq_seqkd.models.checkpoints import sums_of_checkpoints
from fairseq_seqkd.pseudo.store import NBest, PseudoTargetStore
from fairseq_seqkd.pseudo.target_spec import check_target_spec
from fairseq_seqkd.teacher import Teacher

logger = logging.getLogger(__name__)

# Kim & Rush 2016, section 4: K = 5 for Seq-KD, K = 35 for Seq-Inter.
DEFAULT_BEAM = {"best": 5, "closest": 35}


@dataclass
class Recipe:
    """How a store is to be made. None takes what it was made with, for a new one the default.

    Attributes:
        teacher_path: checkpoints, or None when the store must be there already
        load_teacher: called with a device and a dtype if the model itself is needed
        search: values of `SearchOptions` by name
        engine: "name", "compute_type" and "max_tokens", see
            `resolve_engine`
        seed: of the samples of a new store, if its search says nothing else
        half: whether a new store is made in half precision, if its engine says nothing else
        device: where it translates
        threads: how many it may use; None leaves that as it is
    """

    teacher_path: Optional[str] = None
    load_teacher: Optional[Callable[..., Teacher]] = None
    search: Dict[str, Any] = field(default_factory=dict)
    engine: Dict[str, Any] = field(default_factory=dict)
    seed: int = 1
    half: bool = False
    device: Any = "cpu"
    threads: Optional[int] = None

    def teacher_sums(self):
        """The SHA-256 of each of the teacher's checkpoints."""
        return sums_of_checkpoints(self.teacher_path)


def open_store(root, split, spec, recipe):
    """The store at ``root``: checked if it is there, begun if not.

    Args:
        root: its folder
        split: `Split`
        spec: `TargetSpec`, what it is for
        recipe: `Recipe`
    Raises:
        FileNotFoundError: there is no store, and no teacher to make it with
        ValueError: the store was made from something else, or otherwise; or the recipe
            cannot be followed
    """
    store = PseudoTargetStore(root)
    if not store.exists:
        begin_store(store, split, spec, recipe)
        return store
    wanted = {**split.describe(), "search": recipe.search, "engine": dict(recipe.engine)}
    if wanted["engine"].get("name") == "auto":
        wanted["engine"]["name"] = None
    if recipe.teacher_path is not None and "import" not in store.manifest:
        # A finished store is of use when its teacher is no longer there.
        with contextlib.suppress(FileNotFoundError):
            wanted["teacher"] = recipe.teacher_sums()
    store.check(wanted)
    manifest = store.manifest
    has_scores = manifest.get("import", {}).get("format") != "plain text"
    check_target_spec(spec, split, manifest["search"]["nbest"], has_scores)
    return store


def begin_store(store, split, spec, recipe):
    """Write the manifest of a new store; arguments as for `open_store`."""
    if recipe.teacher_path is None:
        raise FileNotFoundError(
            f"--pseudo-targets: there is no store at {store.root!r}. fairseq-seqkd generate "
            "makes one, and so does a training before it begins, both with --teacher-path "
            "CHECKPOINT; or name the folder of a finished one."
        )
    teacher = recipe.teacher_sums()
    search = new_search(spec.selector.name, recipe.search, recipe.seed)
    check_target_spec(spec, split, search.nbest)
    default = {"name": None, "compute_type": "float16" if recipe.half else None}
    given = {"max_tokens": None, **default, **recipe.engine}
    folder = store.converted(teacher)
    engine = resolve_engine(given, search, recipe.device, folder, recipe.load_teacher)
    store.create(
        {
            **split.describe(),
            "teacher": teacher,
            "search": asdict(search),
            "engine": engine,
            "chunk_size": chunk_size(len(split)),
        }
    )


def new_search(spec, search, seed=1):
    """`SearchOptions` from the values given, all n-best kept if nothing is said.

    Args:
        spec: ``best`` or ``closest``
        search: values by name; None takes the default
        seed: of samples
    """
    given = {key: value for key, value in search.items() if value is not None}
    # The best of several samples would be no sample of the teacher's distribution.
    one_sample = given.get("sampling") and spec == "best"
    beam = given.get("beam", 1 if one_sample else DEFAULT_BEAM[spec])
    return SearchOptions(**{"beam": beam, "nbest": beam, "seed": seed, **given})


def translate(store, split, recipe, worker):
    """Translate this worker's chunks that are missing or damaged.

    Args:
        store: `PseudoTargetStore`
        split, recipe: as for `open_store`
        worker: `Worker`
    Raises:
        FileNotFoundError: something is missing, and there is no teacher
    """
    chunks = store.plan(split.dataset.src_sizes)
    missing, mine = missing_chunks(store, len(chunks), worker)
    if missing:  # on every rank, so that none waits for another
        check_can_translate(store, recipe, len(missing), len(chunks))
    if not mine:
        return
    search = SearchOptions(**store.manifest["search"])
    engine = build_engine(
        store.manifest["engine"],
        search,
        recipe.device,
        recipe.threads,
        store.converted(store.manifest["teacher"]),
        recipe.load_teacher,
        (split.dataset.src_dict, split.dataset.tgt_dict),
    )
    logger.info("%s translates %d chunks: %s", engine.name, len(mine), search)
    fill_chunks(store, chunks, mine, lambda ids: start(engine, split.dataset, ids), worker)


def complete(store, split, recipe):
    """Translate whatever is missing or damaged, whoever's it was: before a data-bin is built.

    Args and errors as for `translate`.
    """
    translate(store, split, recipe, Worker())


def check_can_translate(store, recipe, missing, n_chunks):
    """Refuse to begin what cannot be brought to an end."""
    found = (
        f"the store {store.root!r} is not finished ({missing} of {n_chunks} chunks are missing)"
    )
    if "import" in store.manifest:
        raise FileNotFoundError(
            f"--pseudo-targets: {found}, and came from an import: run fairseq-seqkd import "
            "again with the same files and it goes on."
        )
    if recipe.teacher_path is None:
        raise FileNotFoundError(
            f"--pseudo-targets: {found}. Give --teacher-path CHECKPOINT as well, to a "
            "training or to fairseq-seqkd generate, and it is finished first."
        )


def start(engine, dataset, ids):
    """Begin to translate; an engine that works in the background gets all sentences at once.

    Returns:
        an iterator over `NBest`, one for each of ``ids``, in any order
    """
    lengths = dataset.src_sizes[ids]
    statuses = np.select(
        [lengths <= 1, lengths > engine.max_source_positions],  # 1: nothing but EOS
        ["empty source", "source too long"],
        "translated",
    )
    left_out = [
        NBest(id_, status, [])
        for id_, status in zip(ids.tolist(), statuses.tolist())
        if status != "translated"
    ]
    decoded = engine(dataset, ids[statuses == "translated"])
    return itertools.chain(left_out, (nbest(id_, hypotheses) for id_, hypotheses in decoded))


def nbest(id_, hypotheses):
    """An `NBest` of what a teacher said; nothing but EOS is not a translation."""
    hypotheses = [(tokens, score) for tokens, score in hypotheses if len(tokens) > 1]
    return NBest(id_, "translated" if hypotheses else "no finished hypothesis", hypotheses)


def wait_for_chunks(store, split):
    """Return once every process has made its chunks."""
    wait_until(
        lambda: not left_over(store, split),
        f"other processes, which have chunks of {store.root!r} to translate. If one of them "
        "died, stop this one and begin again: what is done is kept.",
    )


def left_over(store, split):
    """How many chunks are not there yet."""
    return len(store.chunks.missing(store.n_chunks(len(split))))
