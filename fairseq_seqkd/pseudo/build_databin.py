"""From a store's n-best lists to a data-bin that students train on, stock fairseq as well."""

import contextlib
import logging
import os
import shutil

import numpy as np
import torch
from fairseq.data import indexed_dataset

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.io.files import atomic_directory, read_json, sweep, write_json
from fairseq_seqkd.io.locks import wait_until
from fairseq_seqkd.pseudo.filters import FILTERS, faults
from fairseq_seqkd.pseudo.generate import complete, open_store, translate, wait_for_chunks
from fairseq_seqkd.pseudo.selected import select_hypotheses
from fairseq_seqkd.pseudo.store import STATUSES

logger = logging.getLogger(__name__)


def build_databin(store, split, spec, processes=0):
    """The data-bin of a store with all its chunks; made if it is not there.

    Args:
        store, split, processes: as for `select_hypotheses`
        spec: `TargetSpec`
    Returns:
        its folder
    Raises:
        ValueError: it is there, with other targets
    """
    databin = store.path(spec.folder)
    with store.locked() as alone:
        if alone:
            sweep(store.root)
            sweep(store.path("nbest"))
        store.write_sums()
        if not os.path.exists(databin):
            selected = select_hypotheses(store, split, spec.selector, processes)
            write_targets(databin, split, selected, spec)
    spec.check(databin)
    return databin


def write_targets(databin, split, selected, spec):
    """Write the data-bin: the selected hypothesis, gold, or nothing for every sentence."""
    fault = faults(selected, spec.filters)
    by_teacher = selected.translated & (fault < 0)
    dropped = (fault >= 0) & spec.drop | ~selected.translated & (not split.has_gold)
    reasons = {
        **{one: selected.statuses == index for index, one in enumerate(STATUSES) if index},
        **{f"filter {one}": fault == index for index, one in enumerate(FILTERS)},
    }

    def count(among):
        counts = {name: int((mask & among).sum()) for name, mask in reasons.items()}
        return {name: number for name, number in counts.items() if number}

    scores = selected.scores[by_teacher].astype(np.float64)
    report = {
        **spec.settings,
        "sentences": {
            "teacher": int(by_teacher.sum()),
            "gold": count(~by_teacher & ~dropped),
            "dropped": count(dropped),
        },
        "mean_score": float(scores.mean())
        if np.isfinite(scores).all() and len(scores)
        else None,
    }

    def target_of(id_):
        return selected.tokens(id_) if by_teacher[id_] else split.dataset.tgt[id_].numpy()

    # Where nothing can be locked, another process may have been quicker.
    with contextlib.suppress(FileExistsError):
        write_databin(databin, split, np.flatnonzero(~dropped), target_of, report)


def summary(databin):
    """The content of a data-bin, as lines to print."""
    report = read_json(os.path.join(databin, "target_spec.json"))
    counts = report["sentences"]
    lines = [f"{databin}: {counts['teacher']} sentences translated by the teacher"]
    for action, kind in (("keep their gold target", "gold"), ("are dropped", "dropped")):
        for reason, count in sorted(counts[kind].items()):
            lines.append(f"  {count} sentences {action}: {reason}")
    if report["mean_score"] is not None:
        lines.append(f"  mean score {report['mean_score']:.3f} nats a token")
    return lines


def prepare_databin(root, split, spec, recipe, worker=None, processes=0):
    """The data-bin that a training wants; whatever is missing of it is made first.

    Args:
        root: the store's folder
        split: `Split`
        spec: `TargetSpec`
        recipe: `Recipe`
        worker: `Worker` of this process among those that train together; all of them return
            when the first has built the data-bin
        processes: how many select, see `select_hypotheses`
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
            complete(store, split, recipe)
            for line in summary(build_databin(store, split, spec, processes)):
                logger.info(line)
        wait_until(lambda: os.path.exists(databin), f"rank 0, which builds {databin!r}")
    spec.check(databin, exactly=False)
    return databin


def write_databin(path, split, ids, target_of, report):
    """Copy the gold data-bin, with the targets of one split replaced.

    Args:
        path: the new folder; must not be there yet
        split: `Split`
        ids: the sentences that stay, in the order of the split
        target_of: gives the (length,) token ids, with EOS, of a sentence id
        report: how they were selected; written to ``target_spec.json``
    """
    dataset = split.dataset
    pair = split.prefix
    if split.is_source_only:
        pair = f"{split.name}.{split.source_lang}-{split.target_lang}"
    source = f"{split.prefix}.{split.source_lang}."
    with atomic_directory(path) as folder:
        for name in sorted(os.listdir(split.folder)):
            if name.startswith(source) and len(ids) == len(split):
                _copy(split.folder, name, folder, pair + name[len(split.prefix) :])
            elif not name.startswith((split.prefix + ".", f"{split.name}.align.")):
                _copy(split.folder, name, folder, name)
        prefix = os.path.join(folder, pair)
        if len(ids) < len(split):
            sources = (dataset.src[int(id_)].numpy() for id_ in ids)
            _write_indexed(f"{prefix}.{split.source_lang}", sources, dataset.src_dict)
        targets = (target_of(int(id_)) for id_ in ids)
        _write_indexed(f"{prefix}.{split.target_lang}", targets, dataset.tgt_dict)
        write_json(os.path.join(folder, "target_spec.json"), report)


def _copy(folder, name, to_folder, to_name):
    source = os.path.join(folder, name)
    if os.path.isfile(source):
        shutil.copyfile(source, os.path.join(to_folder, to_name))


def _write_indexed(prefix, sentences, dictionary):
    builder = indexed_dataset.make_builder(
        indexed_dataset.data_file_path(prefix), impl="mmap", vocab_size=len(dictionary)
    )
    for tokens in sentences:
        builder.add_item(torch.from_numpy(np.array(tokens)))
    builder.finalize(indexed_dataset.index_file_path(prefix))
