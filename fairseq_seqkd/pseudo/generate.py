"""Fills a store: the teacher translates a split, and its choices become a data-bin."""

import contextlib
import logging
import os
from collections import Counter
from dataclasses import asdict, replace

from tqdm import tqdm

from fairseq_seqkd.checkpoints import checkpoint_paths
from fairseq_seqkd.pseudo.backends.fairseq import FairseqBackend
from fairseq_seqkd.pseudo.databin import write_databin
from fairseq_seqkd.pseudo.store import NBest, PseudoTargetStore
from fairseq_seqkd.shards import differences, read_json, sha256, share, wait_for
from fairseq_seqkd.teacher import SearchOptions

logger = logging.getLogger(__name__)

# Kim & Rush 2016, section 4: K = 5 for Seq-KD, K = 35 for Seq-Inter.
DEFAULT_BEAM = {"best": 5, "closest": 35}
CHUNK_SIZE = 512  # sentences: small enough to share out, large enough to batch well


def prepare_databin(
    root, split, selector, search, teacher_path, load_teacher, rank=0, world_size=1
):
    """The data-bin with a selector's targets; whatever is missing of it is made.

    Args:
        root: the store's folder
        split: :class:`~fairseq_seqkd.pseudo.corpus.GoldSplit`
        selector: what chooses a hypothesis, see ``select.py``
        search: {"beam", "nbest", "lenpen"}; None takes what the store was made with
        teacher_path: checkpoints, or None when the store must be there already
        load_teacher: called without arguments when something is left to translate
        rank, world_size: this process among those that share the work; all of them
            return when the first has built the data-bin
    Returns:
        the data-bin's folder
    Raises:
        FileNotFoundError: there is no store, and no teacher to make it with
        ValueError: the store was made from something else, or otherwise
    """
    store = open_store(root, split, selector.name, search, teacher_path)
    databin = store.path(selector.name)
    if not os.path.exists(databin):
        check_choice(store, selector)
        translate(store, split, teacher_path, load_teacher, rank, world_size)
        if rank == 0:
            finish(store, split, selector)
        wait_for(databin)
    check_selection(databin, selector)
    return databin


def open_store(root, split, selection, search, teacher_path):
    """The store at ``root``: checked if it is there, begun if not."""
    store = PseudoTargetStore(root)
    wanted = {**split.describe(), "search": search}
    if store.exists:
        # A finished store is of use when its teacher is no longer there.
        with contextlib.suppress(FileNotFoundError):
            wanted["teacher"] = teacher_path and teacher_sums(teacher_path)
        store.check(wanted)
        return store
    if teacher_path is None:
        raise FileNotFoundError(
            f"--pseudo-targets: there is no store at {root!r}. Give --teacher-path "
            "CHECKPOINT as well and it is made there before training begins, or name "
            "the folder of a finished one."
        )
    given = {key: value for key, value in search.items() if value is not None}
    options = SearchOptions(**{"beam": DEFAULT_BEAM[selection], **given})
    if "nbest" not in given:
        options = replace(options, nbest=options.beam)
    backend = {"name": FairseqBackend.name, "max_tokens": FairseqBackend.MAX_TOKENS}
    store.create(
        {
            **wanted,
            "teacher": teacher_sums(teacher_path),
            "search": asdict(options),
            "backend": backend,
            "chunk_size": CHUNK_SIZE,
        }
    )
    return store


def teacher_sums(path):
    """The SHA-256 of each of the teacher's checkpoints."""
    return [sha256(one) for one in checkpoint_paths(path)]


def check_choice(store, selector):
    """Refuse to choose from a list of one."""
    nbest = store.manifest["search"]["nbest"]
    if selector.name != "best" and nbest < 2:
        raise ValueError(
            f"the store {store.root!r} has {nbest} hypothesis a sentence: there is "
            f"nothing to choose {selector.name!r} from. Make a store of its own with "
            "--teacher-nbest 2 or more (Kim & Rush: 35)."
        )
    logger.info("choosing %r from %d-best lists", selector.name, nbest)


def check_selection(databin, selector):
    """Refuse a data-bin whose targets were chosen in another way."""
    found = differences(read_json(os.path.join(databin, "selection.json")), selector.settings)
    if found:
        raise ValueError(
            f"the targets in {databin!r} were chosen otherwise:\n  "
            + "\n  ".join(found)
            + "\nTake the flags they were chosen with, or remove this folder (the n-best "
            "lists stay) and they are chosen again."
        )


def translate(store, split, teacher_path, load_teacher, rank, world_size):
    """Translate this process's chunks that are not there yet."""
    chunks = store.plan(split.dataset.src_sizes)
    missing = [i for i in range(len(chunks)) if not os.path.exists(store.chunk_path(i))]
    if missing and teacher_path is None:  # on every rank, so that none waits for another
        raise FileNotFoundError(
            f"--pseudo-targets: the store {store.root!r} is not finished "
            f"({len(missing)} of {len(chunks)} chunks are missing). Give --teacher-path "
            "CHECKPOINT as well, and it is finished first."
        )
    mine = [i for i in share(len(chunks), rank, world_size) if i in missing]
    if not mine:
        return
    options = SearchOptions(**store.manifest["search"])
    backend = FairseqBackend(load_teacher(), options, store.manifest["backend"]["max_tokens"])
    sentences = sum(len(chunks[i]) for i in mine)
    logger.info("the teacher translates %d sentences, %s", sentences, options)
    with tqdm(total=sentences, unit=" sentences", disable=rank != 0) as progress:
        for i in mine:
            found = translate_chunk(backend, split.dataset, chunks[i], progress)
            store.write_chunk(i, found)


def translate_chunk(backend, dataset, ids, progress):
    """A list of :class:`NBest`, one for each id, in the order of ``ids``."""
    lengths = dataset.src_sizes[ids]
    outcomes = {}
    for id_, length in zip(ids.tolist(), lengths):
        if length <= 1:  # nothing but EOS
            outcomes[id_] = NBest(id_, "empty source", [])
        elif length > backend.max_source_positions:
            outcomes[id_] = NBest(id_, "source too long", [])
    progress.update(len(outcomes))
    rest = [id_ for id_ in ids.tolist() if id_ not in outcomes]
    for id_, hypotheses in backend(dataset, rest):
        outcome = "translated" if hypotheses else "no finished hypothesis"
        outcomes[id_] = NBest(id_, outcome, hypotheses)
        progress.update(1)
    return [outcomes[id_] for id_ in ids.tolist()]


def finish(store, split, selector):
    """Wait for every chunk, then choose and write the data-bin."""
    n_chunks = len(store.plan(split.dataset.src_sizes))
    targets = [None] * len(split.dataset)
    outcomes = Counter()
    for i in tqdm(range(n_chunks), unit=" chunks", desc=f"choosing {selector.name}"):
        wait_for(store.chunk_path(i))
        for sentence in store.read_chunk(i):
            gold = split.dataset.tgt[sentence.id]
            targets[sentence.id] = gold
            outcomes[sentence.outcome] += 1
            if sentence.hypotheses:
                choice = selector(sentence.hypotheses, gold)
                # A copy: a view would keep the whole chunk in memory.
                targets[sentence.id] = sentence.hypotheses[choice][0].copy()
    store.write_sums(n_chunks, outcomes)
    settings = {"selection": selector.name, **selector.settings}
    # Another training that began at the same time may have made the same data-bin.
    with contextlib.suppress(FileExistsError):
        write_databin(store.path(selector.name), split, targets, settings)
    report(store.path(selector.name), outcomes)


def report(databin, outcomes):
    """Say what was written, and what kept its gold target and why."""
    logger.info(
        "wrote %s: %d sentences translated by the teacher",
        databin,
        outcomes["translated"],
    )
    for outcome, count in sorted(outcomes.items()):
        if outcome != "translated":
            logger.warning("%d sentences keep their gold target: %s", count, outcome)
