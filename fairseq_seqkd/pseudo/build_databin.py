"""Builds data-bins from a store's n-best lists; stock fairseq trains on them too."""

import contextlib
import logging
import os
import shutil

import numpy as np

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.io.files import (
    atomic_directory,
    read_json,
    sha256,
    write_json,
)
from fairseq_seqkd.io.locks import seen_at_last, wait_until
from fairseq_seqkd.models.data_folders import split_files
from fairseq_seqkd.models.datasets import (
    copy_as_mmap,
    is_older_format,
    write_entries,
    write_mmap,
)
from fairseq_seqkd.pseudo.filters import FILTERS, apply_filters, filter_flag, measures_of
from fairseq_seqkd.pseudo.generate import (
    open_store,
    translate,
    translate_remaining,
    wait_for_chunks,
)
from fairseq_seqkd.pseudo.gold import gold_mask_of
from fairseq_seqkd.pseudo.hypothesis_lists import list_arrays
from fairseq_seqkd.pseudo.quality import describe, quality_against_gold
from fairseq_seqkd.pseudo.selected import select_hypotheses
from fairseq_seqkd.pseudo.store import STATUSES

logger = logging.getLogger(__name__)


def prepare_databin(root, split, spec, recipe, worker=None, processes=0):
    """Return the data-bin for a training; translate and build what is missing.

    Args:
        root: the store's folder
        split: `PairSplit`
        spec: `TargetSpec`
        recipe: `Recipe`
        worker: `Worker` of this process among those that train together; all of them return
            once the first has built the data-bin
        processes: as for `select_hypotheses`
    Returns:
        the data-bin's folder
    Raises:
        FileNotFoundError, ValueError: see `open_store` and `build_databin`
    """
    worker = worker or Worker()
    store = open_store(root, split, spec, recipe)
    databin = store.path(spec.folder)
    if not os.path.exists(databin):
        translate(store, split, recipe, worker)
        if worker.rank == 0:
            wait_for_chunks(store, split)
            translate_remaining(store, split, recipe)
            for line in summary(build_databin(store, split, spec, processes)):
                logger.info(line)
        wait_until(lambda: os.path.exists(databin), f"rank 0, which builds {databin!r}")
    spec.check(databin, exactly=False)
    check_files(databin)
    return databin


def check_files(databin):
    """Refuse a data-bin whose training files are not those that were written.

    Raises:
        ValueError: names the file
    """
    recorded = read_json(os.path.join(databin, "target_spec.json")).get("sha256", {})
    for name, digest in recorded.items():
        path = os.path.join(databin, name)
        if not os.path.exists(path) or sha256(path) != digest:
            raise ValueError(
                f"--pseudo-targets: {path!r} is missing, damaged or was changed: it does not "
                f"have the SHA-256 in target_spec.json. Remove the folder {databin!r}, and it "
                "is built again from the n-best lists of its store."
            )


def build_databin(store, split, spec, processes=0):
    """Build a data-bin from a finished store, unless it exists.

    Args:
        store, split, processes: as for `select_hypotheses`
        spec: `TargetSpec`
    Returns:
        the data-bin's folder
    Raises:
        ValueError: it exists, with other targets
    """
    databin = store.path(spec.folder)
    with store.sealed():
        if not os.path.exists(databin):
            how = processes, spec.rows_per_sentence(store), measures_of(spec.filters), spec.text
            selected = select_hypotheses(store, split, spec.selector, *how)
            write_targets(databin, split, selected, spec)
    seen_at_last(lambda: os.path.exists(databin))  # another host's, perhaps
    spec.check(databin)
    return databin


def write_targets(databin, split, selected, spec):
    """Write a data-bin whose targets are the selected hypotheses that pass the filters.

    Args:
        databin: the new folder
        split: `PairSplit`
        selected: `SelectedHypotheses`
        spec: `TargetSpec`
    Raises:
        ValueError: no sentence is left
    """
    keep, rejected_by = selected.keep, apply_filters(selected, spec.filters)
    target_mask = selected.translated_mask & (rejected_by < 0)
    has_target_mask = target_mask.reshape(-1, keep).any(1)
    first_rejected_by, translated_mask = rejected_by[::keep], selected.translated_mask[::keep]
    droppable = (first_rejected_by >= 0) & spec.drop | ~translated_mask & (not split.has_gold)
    dropped_mask = ~has_target_mask & droppable
    if dropped_mask.all() and (rejected_by >= 0).any():
        raise ValueError(_nothing_left(databin, rejected_by, spec))
    gold_mask = ~has_target_mask & ~dropped_mask
    reasons = _reasons(selected.statuses[::keep], first_rejected_by)
    report = {
        **spec.settings,
        "sentences": {
            "teacher": int(has_target_mask.sum()),
            "gold": _count(reasons, gold_mask),
            "dropped": _count(reasons, dropped_mask),
        },
        **_describe_targets(selected, split, spec, target_mask),
    }
    if spec.selector.needs_gold:
        without_gold_mask = has_target_mask & ~gold_mask_of(split)
        report["without_gold"] = int(without_gold_mask.sum())
    if spec.settings["keep"]:
        rejected = _reasons(np.zeros_like(selected.statuses), rejected_by)
        report["pairs"] = int(target_mask.sum() + gold_mask.sum())
        report["rejected_pairs"] = _count(rejected, rejected_by >= 0)
    row_mask = target_mask.copy()
    row_mask[::keep] |= gold_mask
    rows, arrays = np.flatnonzero(row_mask), {}
    if spec.selector.keeps_lists:
        arrays = list_arrays(selected, rows, target_mask)

    def target_of(row):
        id_ = row // keep
        return selected.tokens(row) if target_mask[row] else split.dataset.tgt[id_].numpy()

    # On a file system without locks another process may have built it in the meantime.
    with contextlib.suppress(FileExistsError):
        write_databin(databin, split, rows, target_of, report, keep, arrays)


def _describe_targets(selected, split, spec, target_mask):
    """The mean score of the teacher's targets, and the quality of the best of each sentence."""
    by_sentence = target_mask.reshape(len(split), -1)
    first_rows = np.arange(len(split)) * selected.keep + by_sentence.argmax(1)
    ids = np.flatnonzero(by_sentence.any(1))

    def best(id_):
        return selected.tokens(first_rows[id_])

    quality = (
        quality_against_gold(split, ids, best, spec.text) if spec.measures_quality else None
    )
    mean_score = _finite_mean(selected.scores[target_mask].astype(np.float64))
    return {"mean_score": mean_score, "quality": quality}


def _nothing_left(databin, rejected_by, spec):
    flags = ", ".join(map(filter_flag, spec.filters))
    return (
        f"{databin!r} would have no sentence: of {len(rejected_by)}, "
        f"{int((rejected_by >= 0).sum())} are rejected by {flags}, and the others have no "
        "hypothesis. Loosen the filters, or check the teacher (fairseq-seqkd evaluate)."
    )


def _reasons(statuses, rejected_by):
    """{reason for which a sentence has no target of the teacher: (sentences,) mask}."""
    return {
        **{name: statuses == index for index, name in enumerate(STATUSES) if index},
        **{f"filter {name}": rejected_by == index for index, name in enumerate(FILTERS)},
    }


def _count(reasons, mask):
    """{reason: number of sentences in the mask}, without zeros."""
    numbers = {reason: int((where & mask).sum()) for reason, where in reasons.items()}
    return {reason: number for reason, number in numbers.items() if number}


def _finite_mean(scores):
    return float(scores.mean()) if np.isfinite(scores).all() and len(scores) else None


def summary(databin):
    """Describe the targets of a data-bin, as lines to print."""
    report = read_json(os.path.join(databin, "target_spec.json"))
    numbers = report["sentences"]
    lines = [f"{databin}: {numbers['teacher']} sentences translated by the teacher"]
    if report.get("keep"):
        lines.append(f"  {report['pairs']} pairs; kept per sentence: {report['keep']}")
        for reason, number in sorted(report["rejected_pairs"].items()):
            lines.append(f"  {number} pairs are left out: {reason}")
    for action, kind in (("keep their gold target", "gold"), ("are dropped", "dropped")):
        for reason, number in sorted(numbers[kind].items()):
            lines.append(f"  {number} sentences {action}: {reason}")
    if report.get("without_gold"):
        lines.append(
            f"  {report['without_gold']} sentences have no gold target to compare with: the "
            "teacher's best hypothesis is taken"
        )
    if report["mean_score"] is not None:
        lines.append(f"  mean score {report['mean_score']:.3f} {_score_unit(databin)}")
    if report.get("quality"):
        lines.append(f"  {describe(report['quality'])}")
    return lines


def _score_unit(databin):
    manifest = read_json(os.path.join(os.path.dirname(databin), "manifest.json"))
    is_list = (manifest.get("import") or {}).get("format") == "n-best list"
    return "as in the imported list" if is_list else "nats per token"


def write_databin(path, split, rows, target_of, report, keep=1, arrays=None):
    """Copy the gold data-bin, with other targets in one split.

    Args:
        path: the new folder; must not exist yet
        split: `PairSplit`
        rows: the pairs to write, as rows of `SelectedHypotheses`: sentence ids with ``keep`` 1
        target_of: called with a row, returns its (length,) token ids with EOS
        report: the content of ``target_spec.json``, without the SHA-256 of the split's files
        keep: rows per sentence
        arrays: {name of a file: array} to write beside the pairs
    """
    pair = split.prefix
    if split.is_source_only:
        pair = f"{split.name}.{split.source_lang}-{split.target_lang}"
    dataset = split.dataset
    with atomic_directory(path) as folder:
        all_kept = keep == 1 and len(rows) == len(split)
        _copy_files(split, folder, pair if all_kept else None)
        prefix = os.path.join(folder, pair)
        if not all_kept:
            ids, entries = np.unique(rows // keep, return_inverse=True)
            sources, sizes = (
                (dataset.src[int(id_)] for id_ in ids),
                np.asarray(dataset.src_sizes)[ids],
            )
            source_prefix = f"{prefix}.{split.source_lang}"
            write_entries(source_prefix, sources, sizes, entries, len(dataset.src_dict))
        targets = (target_of(int(row)) for row in rows)
        write_mmap(f"{prefix}.{split.target_lang}", targets, len(dataset.tgt_dict))
        for name, array in (arrays or {}).items():
            np.save(os.path.join(folder, name), array)
        names = [*split_files(folder, pair), *(arrays or {})]
        sums = {name: sha256(os.path.join(folder, name)) for name in names}
        write_json(os.path.join(folder, "target_spec.json"), {**report, "sha256": sums})


def _copy_files(split, folder, source_prefix):
    """Copy the gold data-bin's files, but for the split's targets and alignments.

    Args:
        split: `PairSplit`
        folder: the new data-bin
        source_prefix: the new prefix of the split's source files; None: they are left out
    """
    source_files = f"{split.prefix}.{split.source_lang}."
    for name in sorted(os.listdir(split.folder)):
        new_name = name
        if name.startswith((split.prefix + ".", f"{split.name}.align.")):
            if source_prefix is None or not name.startswith(source_files):
                continue
            new_name = source_prefix + name[len(split.prefix) :]
        path = os.path.join(split.folder, name)
        if os.path.isfile(path):
            _copy_file(split, path, os.path.join(folder, new_name))
    for path in split.dictionary_paths():
        shutil.copyfile(path, os.path.join(folder, os.path.basename(path)))


def _copy_file(split, old, new):
    """Copy a file; one of fairseq's older format becomes mmap, as the targets are."""
    prefix, suffix = os.path.splitext(old)
    if suffix not in (".bin", ".idx") or not is_older_format(prefix):
        shutil.copyfile(old, new)
    elif suffix == ".bin":  # writes the index too
        lang = prefix.rpartition(".")[-1]
        copy_as_mmap(prefix, os.path.splitext(new)[0], split.vocab(lang))
