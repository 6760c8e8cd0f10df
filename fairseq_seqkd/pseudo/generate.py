"""Fills a store: the teacher translates a split, chunk by chunk."""

import contextlib
import itertools
import logging
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Dict, Optional

import numpy as np

from fairseq_seqkd.checkpoints import sums_of_checkpoints
from fairseq_seqkd.pseudo.backends import build_backend, choose_backend
from fairseq_seqkd.pseudo.progress import TranslationProgress
from fairseq_seqkd.pseudo.selection import check_choice
from fairseq_seqkd.pseudo.store import NBest, PseudoTargetStore
from fairseq_seqkd.search import SearchOptions
from fairseq_seqkd.shards import Share, chunk_size, wait_until
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
        search: values of :class:`~fairseq_seqkd.search.SearchOptions` by name
        backend: "name", "compute_type" and "max_tokens", see
            :func:`~fairseq_seqkd.pseudo.backends.choose_backend`
        seed: of the samples of a new store, if its search says nothing else
        half: whether a new store is made in half precision, if its backend says nothing else
        device: where it translates
        threads: how many it may use; None leaves that as it is
    """

    teacher_path: Optional[str] = None
    load_teacher: Optional[Callable[..., Teacher]] = None
    search: Dict[str, Any] = field(default_factory=dict)
    backend: Dict[str, Any] = field(default_factory=dict)
    seed: int = 1
    half: bool = False
    device: Any = "cpu"
    threads: Optional[int] = None

    def teacher_sums(self):
        """The SHA-256 of each of the teacher's checkpoints."""
        return sums_of_checkpoints(self.teacher_path)


def open_store(root, split, selection, recipe):
    """The store at ``root``: checked if it is there, begun if not.

    Args:
        root: its folder
        split: :class:`~fairseq_seqkd.pseudo.corpus.Split`
        selection: :class:`~fairseq_seqkd.pseudo.selection.Selection`, what it is for
        recipe: :class:`Recipe`
    Raises:
        FileNotFoundError: there is no store, and no teacher to make it with
        ValueError: the store was made from something else, or otherwise; or the recipe
            cannot be followed
    """
    store = PseudoTargetStore(root)
    if not store.exists:
        begin_store(store, split, selection, recipe)
        return store
    wanted = {**split.describe(), "search": recipe.search, "backend": dict(recipe.backend)}
    if wanted["backend"].get("name") == "auto":
        wanted["backend"]["name"] = None
    if recipe.teacher_path is not None and "import" not in store.manifest:
        # A finished store is of use when its teacher is no longer there.
        with contextlib.suppress(FileNotFoundError):
            wanted["teacher"] = recipe.teacher_sums()
    store.check(wanted)
    manifest = store.manifest
    has_scores = manifest.get("import", {}).get("format") != "plain text"
    check_choice(selection, split, manifest["search"]["nbest"], has_scores)
    return store


def begin_store(store, split, selection, recipe):
    """Write the manifest of a new store; arguments as for :func:`open_store`."""
    if recipe.teacher_path is None:
        raise FileNotFoundError(
            f"--pseudo-targets: there is no store at {store.root!r}. fairseq-seqkd generate "
            "makes one, and so does a training before it begins, both with --teacher-path "
            "CHECKPOINT; or name the folder of a finished one."
        )
    teacher = recipe.teacher_sums()
    search = new_search(selection.selector.name, recipe.search, recipe.seed)
    check_choice(selection, split, search.nbest)
    default = {"name": None, "compute_type": "float16" if recipe.half else None}
    given = {"max_tokens": None, **default, **recipe.backend}
    folder = store.converted(teacher)
    backend = choose_backend(given, search, recipe.device, folder, recipe.load_teacher)
    store.create(
        {
            **split.describe(),
            "teacher": teacher,
            "search": asdict(search),
            "backend": backend,
            "chunk_size": chunk_size(len(split)),
        }
    )


def new_search(selection, search, seed=1):
    """:class:`SearchOptions` from the values given, all n-best kept if nothing is said.

    Args:
        selection: ``best`` or ``closest``
        search: values by name; None takes the default
        seed: of samples
    """
    given = {key: value for key, value in search.items() if value is not None}
    # The best of several samples would be no sample of the teacher's distribution.
    one_sample = given.get("sampling") and selection == "best"
    beam = given.get("beam", 1 if one_sample else DEFAULT_BEAM[selection])
    return SearchOptions(**{"beam": beam, "nbest": beam, "seed": seed, **given})


def translate(store, split, recipe, share):
    """Translate this process's chunks that are not there, or no longer whole.

    Args:
        store: :class:`PseudoTargetStore`
        split, recipe: as for :func:`open_store`
        share: :class:`~fairseq_seqkd.shards.Share`
    Raises:
        FileNotFoundError: something is missing, and there is no teacher
    """
    chunks = store.plan(split.dataset.src_sizes)
    own = share.of(len(chunks))
    missing = store.missing(len(chunks), own)
    if missing:  # on every rank, so that none waits for another
        check_can_translate(store, recipe, len(missing), len(chunks))
    mine = [index for index in missing if index in own]
    if not mine:
        return
    search = SearchOptions(**store.manifest["search"])
    backend = build_backend(
        store.manifest["backend"],
        search,
        recipe.device,
        recipe.threads,
        store.converted(store.manifest["teacher"]),
        recipe.load_teacher,
        (split.dataset.src_dict, split.dataset.tgt_dict),
    )
    sentences = sum(len(chunks[index]) for index in mine)
    logger.info("%s translates %d sentences: %s", backend.name, sentences, search)
    with TranslationProgress(sentences, disable=share.rank != 0) as progress:
        decoding = ((i, start_chunk(backend, split.dataset, chunks[i])) for i in mine)
        for index, translated in one_ahead(decoding):
            store.write_chunk(index, collect(translated, chunks[index], progress))


def complete(store, split, recipe):
    """Translate whatever is missing or damaged, whoever's it was: before a data-bin is built.

    Args and errors as for :func:`translate`.
    """
    translate(store, split, recipe, Share())


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


def start_chunk(backend, dataset, ids):
    """Begin to translate; a backend that works in the background is given all at once.

    Returns:
        an iterator over :class:`NBest`, one for each of ``ids``, in any order
    """
    lengths = dataset.src_sizes[ids]
    outcomes = np.select(
        [lengths <= 1, lengths > backend.max_source_positions],  # 1: nothing but EOS
        ["empty source", "source too long"],
        "translated",
    )
    left_out = [
        NBest(id_, outcome, [])
        for id_, outcome in zip(ids.tolist(), outcomes.tolist())
        if outcome != "translated"
    ]
    decoded = backend(dataset, ids[outcomes == "translated"])
    return itertools.chain(left_out, (nbest(id_, hypotheses) for id_, hypotheses in decoded))


def nbest(id_, hypotheses):
    """An :class:`NBest` of what a teacher said; nothing but EOS is not a translation."""
    hypotheses = [(tokens, score) for tokens, score in hypotheses if len(tokens) > 1]
    return NBest(id_, "translated" if hypotheses else "no finished hypothesis", hypotheses)


def collect(sentences, ids, progress):
    """The list of :class:`NBest` in the order of ``ids``."""
    by_id = {}
    for sentence in sentences:
        by_id[sentence.id] = sentence
        progress.add(sentence)
    return [by_id[id_] for id_ in ids.tolist()]


def one_ahead(items):
    """The items, each of them only when the one after it was begun."""
    items = iter(items)
    waiting = list(itertools.islice(items, 1))
    for item in items:
        yield waiting.pop()
        waiting.append(item)
    yield from waiting


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
