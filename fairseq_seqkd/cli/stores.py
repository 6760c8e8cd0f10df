"""Arguments and steps shared by the subcommands that make stores."""

import contextlib
import os

import torch

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.cli.targets import target_spec_of
from fairseq_seqkd.databin import open_shards, open_split
from fairseq_seqkd.models.data_folders import folder_of_each
from fairseq_seqkd.pseudo.build_databin import build_databin, summary
from fairseq_seqkd.pseudo.source_text import has_text, open_text
from fairseq_seqkd.pseudo.unfinished import check_unfinished


def add_data_arguments(parser):
    """Add DATA, its split and languages, and the store's folder."""
    parser.add_argument("data", metavar="DATA", help="data-bin that fairseq-preprocess wrote")
    parser.add_argument(
        "--pseudo-targets", metavar="DIR", required=True, help="folder of the store"
    )
    add_split_arguments(parser)


def add_teacher_arguments(parser, unless=None):
    """Add --teacher-path and --teacher-data.

    Args:
        unless: when the teacher is not needed, in words; None: it always is
    """
    not_needed = f"; not needed {unless}" if unless else ""
    parser.add_argument(
        "--teacher-path",
        metavar="T",
        required=not unless,
        help=f"the teacher's checkpoint, or several separated by colons{not_needed}",
    )
    parser.add_argument("--teacher-data", help="folder with the teacher's dictionaries")


def add_split_arguments(parser, split="train", help="default: %(default)s"):
    """Add the split of DATA and its languages."""
    parser.add_argument("--split", default=split, help=help)
    parser.add_argument("--source-lang", "-s", help="default: inferred from the file names")
    parser.add_argument("--target-lang", "-t", help="default: inferred from the file names")


def add_teacher_source_arguments(parser):
    """Add --teacher-source, and the configuration of the student's speech."""
    parser.add_argument(
        "--teacher-source",
        metavar="FOLDER",
        help="what the teacher reads in the place of the sources of DATA: a data-bin with the "
        "same sentences, or none for a language model",
    )
    parser.add_argument(
        "--config-yaml", metavar="FILE", help="of DATA, if that is speech; default: config.yaml"
    )


def add_overwrite_argument(parser):
    """Add --overwrite."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what the folder holds; without this flag it is continued",
    )


def add_threads_argument(parser):
    """Add --threads."""
    parser.add_argument(
        "--threads",
        type=int,
        help="threads of this process; default: the machine's cores divided by its processes",
    )


def add_worker_arguments(parser):
    """Add --threads, and the number of this process among those that share the work."""
    add_threads_argument(parser)
    group = parser.add_argument_group("several processes, started without torchrun or Slurm")
    group.add_argument("--num-shards", type=int, help="number of processes")
    group.add_argument("--shard-id", type=int, help="number of this process, from 0")


def split_of(arguments):
    """Open the split that the flags name."""
    return open_split(
        arguments.data, arguments.split, arguments.source_lang, arguments.target_lang
    )


def stores_of(arguments):
    """Yield the folder, `PairSplit` and `TargetSpec` of the store of every data-bin in DATA.

    The split of a store that was made from text is that text.
    """
    data, split = arguments.data, arguments.split
    languages = arguments.source_lang, arguments.target_lang
    folders = folders_of(arguments)
    _check_files_of_one_store(arguments, folders)
    if has_text(folders[0]):
        splits = [open_text(folders[0], data, split, languages)]
    else:
        splits = open_shards(data, split, *languages)
    for folder, split in zip(folders, splits):
        yield folder, split, target_spec_of(arguments, split)


def _check_files_of_one_store(arguments, folders):
    for name in ("scores", "filter_scores", "nbest_list"):
        if len(folders) > 1 and getattr(arguments, name, None) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} with {len(folders)} stores: the file is of one. "
                "Give one data-bin and its store at a time."
            )


def folders_of(arguments):
    """The folders of the stores of the data-bins in DATA."""
    return folder_of_each(arguments.data, arguments.pseudo_targets, "--pseudo-targets")


def threads_of(arguments, worker=None):
    """The value of --threads, or this process's part of the machine's cores."""
    if arguments.threads is not None and arguments.threads < 1:
        raise ValueError(f"--threads is {arguments.threads}, expected 1 or more")
    return arguments.threads or (worker or Worker()).threads


def overwriting(store, overwrite, worker):
    """A context in which a new store replaces an existing one, if --overwrite was given.

    Args:
        store: `ChunkedStore`
        overwrite: whether the flag was given
        worker: `Worker` of this process
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
    """The GPU of this process; the CPU with ``cpu`` or without any GPU."""
    if cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", worker.rank))
    return torch.device("cuda", int(local) % torch.cuda.device_count())


def build_and_report(store, split, spec, arguments):
    """Build the data-bin and print a summary of it.

    Raises:
        TooManyUnfinished: see `check_unfinished`
    """
    databin = build_databin(store, split, spec, threads_of(arguments))
    for line in summary(databin):
        print(line)
    check_unfinished(databin, arguments.accept_unfinished)


def next_command(arguments, split, spec):
    """The text that says how to train on finished data-bins.

    Args:
        arguments: of the command
        split, spec: the `PairSplit` and the `TargetSpec` of one of them
    """
    roots = arguments.pseudo_targets.split(os.pathsep)
    databins = os.pathsep.join(os.path.join(root, spec.folder) for root in roots)
    stock = f"fairseq-train {databins} --task translation ..."
    names = {
        "best": "seq_kd",
        "closest": "seq_inter",
        "sampled": "seq_kd --kd-targets sampled",
    }
    criterion = names.get(spec.folder)
    if criterion is None or spec.drop or not split.has_gold:
        return f"Train a student on it, with stock fairseq:\n  {stock}"
    return (
        "Train a student on it:\n"
        f"  fairseq-train {arguments.data} --user-dir $(fairseq-seqkd user-dir) --task "
        f"translation_seqkd \\\n      --criterion {criterion} --pseudo-targets "
        f"{arguments.pseudo_targets} ...\n"
        f"or with stock fairseq:\n  {stock}"
    )
