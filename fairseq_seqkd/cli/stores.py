"""What the subcommands that make stores have in common."""

import contextlib
import os
import re

import torch

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.databin import open_split
from fairseq_seqkd.pseudo.build_databin import build_databin, summary
from fairseq_seqkd.pseudo.filters import FILTERS
from fairseq_seqkd.pseudo.selectors import METRICS, build_selector
from fairseq_seqkd.pseudo.target_spec import TargetSpec


def add_data_arguments(parser):
    """DATA, its split and languages, and the store's folder."""
    parser.add_argument("data", metavar="DATA", help="data-bin that fairseq-preprocess wrote")
    parser.add_argument(
        "--pseudo-targets", metavar="DIR", required=True, help="the store's folder"
    )
    parser.add_argument("--split", default="train", help="default: %(default)s")
    parser.add_argument("--source-lang", "-s", help="default: from the file names")
    parser.add_argument("--target-lang", "-t", help="default: from the file names")


def add_threads_argument(parser):
    """--threads."""
    parser.add_argument(
        "--threads", type=int, help="default: this machine's cores divided by its processes"
    )


def add_worker_arguments(parser):
    """Which process this is, and how many threads it may use."""
    add_threads_argument(parser)
    group = parser.add_argument_group("sharing by hand (torchrun and Slurm say it themselves)")
    group.add_argument("--num-shards", type=int, help="how many processes there are")
    group.add_argument("--shard-id", type=int, help="this one's number, from 0")


def add_target_spec_arguments(parser):
    """How targets are chosen, and which of them are not taken."""
    group = parser.add_argument_group("choosing the targets")
    group.add_argument(
        "--select",
        choices=["best", "closest"],
        default="best",
        help="the teacher's best hypothesis, or the one closest to gold; default: best",
    )
    group.add_argument(
        "--metric", choices=list(METRICS), default="bleu", help="closest by what; default: bleu"
    )
    group.add_argument(
        "--remove-bpe",
        help="how subwords are joined before text is compared, as in fairseq-generate: "
        "sentencepiece or '@@ '",
    )
    group.add_argument(
        "--moses", metavar="LANG", help="undo Moses tokenisation of this language as well"
    )
    group.add_argument(
        "--databin", help="the data-bin's name in DIR; default: best, closest, closest-chrf"
    )
    group = parser.add_argument_group("filters: what is found keeps its gold target, or goes")
    group.add_argument(
        "--filter-length-ratio",
        type=float,
        metavar="R",
        help="source or target more than R times as long as the other",
    )
    group.add_argument(
        "--filter-score-percentile",
        type=float,
        metavar="P",
        help="the teacher's score among the worst P percent, such as 5",
    )
    group.add_argument(
        "--filter-copies", action="store_true", help="the translation is the source"
    )
    group.add_argument(
        "--filter-duplicates",
        action="store_true",
        help="the same source and translation stand further up",
    )
    group.add_argument(
        "--filter-action",
        choices=["gold", "drop"],
        help="default: gold; drop where there is no gold",
    )


def split_of(arguments):
    """The split that the flags name, and a task with its dictionaries."""
    return open_split(
        arguments.data, arguments.split, arguments.source_lang, arguments.target_lang
    )


def threads_of(arguments, worker=None):
    """--threads, or as many as this process has of its machine's cores."""
    if arguments.threads is not None and arguments.threads < 1:
        raise ValueError(f"--threads is {arguments.threads}, expected 1 or more")
    return arguments.threads or (worker or Worker()).threads


def anew(store, overwrite, worker):
    """With --overwrite the store that is there goes when the new one is begun.

    Args:
        store: `ChunkedStore`
        overwrite: whether the flag was given
        worker: of this process
    """
    if not overwrite:
        return contextlib.nullcontext()
    if worker.world_size > 1:
        raise ValueError(
            f"--overwrite: this is one of {worker.world_size} processes, and would delete what "
            "others have done. Delete the folder first, then start them without --overwrite."
        )
    return store.replaced()


def device_of(cpu, worker):
    """The GPU of this process, or the CPU."""
    if cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", worker.rank))
    return torch.device("cuda", int(local) % torch.cuda.device_count())


def target_spec_of(arguments, split):
    """The `TargetSpec` that the flags ask for."""
    selector = build_selector(
        arguments.select,
        split.dataset.tgt_dict,
        arguments.remove_bpe,
        arguments.metric,
        arguments.moses,
    )
    filters = {name: getattr(arguments, f"filter_{name}") for name in FILTERS}
    action = arguments.filter_action or ("gold" if split.has_gold else "drop")
    folder = arguments.databin
    if folder is not None and (not re.fullmatch(r"\w[\w.-]*", folder) or folder == "nbest"):
        raise ValueError(
            f"--databin is {folder!r}: expected the name of a folder in DIR, other than nbest"
        )
    return TargetSpec(selector, filters, action == "drop", folder)


def finish(store, split, spec, threads):
    """Build the data-bin; say what is in it, and what to type next."""
    for line in summary(build_databin(store, split, spec, threads)):
        print(line)
    print(next_command(split, store.root, spec))


def next_command(split, root, spec):
    """What to type when a data-bin is there."""
    stock = f"fairseq-train {os.path.join(root, spec.folder)} --task translation ..."
    names = {"best": "seq_kd", "closest": "seq_inter"}
    criterion = names.get(spec.folder)
    if criterion is None or spec.drop or not split.has_gold:
        return f"Train a student on it, with stock fairseq:\n  {stock}"
    return (
        "Train a student on it:\n"
        f"  fairseq-train {split.folder} --user-dir $(fairseq-seqkd user-dir) --task "
        f"translation_seqkd \\\n      --criterion {criterion} --pseudo-targets {root} ...\n"
        f"or with stock fairseq:\n  {stock}"
    )
