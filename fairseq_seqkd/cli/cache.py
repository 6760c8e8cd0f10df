"""Store the teacher's distribution at every target position of a split, for --kd-cache.

With the cache, word-level distillation needs no teacher: a training with --kd-cache DIR costs
as much as plain cross-entropy. For every position the cache holds the teacher's most probable
symbols, their log-probabilities, and the probability of all other symbols together.

After an interruption, run it again and it continues. Several processes share the work if they
are started by torchrun or Slurm, or by hand with --num-shards and --shard-id.

DATA is a data-bin with the teacher's dictionaries, such as one of a store of pseudo-targets.
DATA1:DATA2 are scored into --kd-cache DIR1:DIR2, one cache each.

With --teacher-source the teacher reads the sentences of another data-bin, or none: DATA may be
speech then, and has the student's target dictionary only.

Example:
    fairseq-seqkd cache data-bin --teacher-path teacher.pt --kd-cache cache
    fairseq-seqkd cache pseudo/best --teacher-path teacher.pt --kd-cache cache-best --top-k 16
    fairseq-seqkd cache speech --teacher-source transcripts --teacher-path mt.pt \\
        --kd-cache cache
"""

import functools

import torch

from fairseq_seqkd.cache.build import DEFAULTS, estimate, fill, open_cache, seal
from fairseq_seqkd.cache.store import DistributionCache
from fairseq_seqkd.cache.teacher_source import load_sourced_splits
from fairseq_seqkd.chunked.workers import this_worker
from fairseq_seqkd.cli.stores import (
    add_overwrite_argument,
    add_split_arguments,
    add_teacher_arguments,
    add_teacher_source_arguments,
    add_worker_arguments,
    device_of,
    overwriting,
    threads_of,
)
from fairseq_seqkd.databin import Split
from fairseq_seqkd.models.adapters import DTYPES
from fairseq_seqkd.models.checkpoints import sha256_of_checkpoints
from fairseq_seqkd.models.data_folders import folder_of_each
from fairseq_seqkd.teacher import load_teacher, sources_of_each


def add_arguments(parser):
    parser.add_argument("data", metavar="DATA", help="data-bin that fairseq-preprocess wrote")
    parser.add_argument("--kd-cache", metavar="DIR", required=True, help="folder of the cache")
    add_teacher_arguments(parser)
    add_teacher_source_arguments(parser)
    add_split_arguments(parser)
    add_overwrite_argument(parser)
    group = parser.add_argument_group("content (the defaults are those of a new cache)")
    group.add_argument(
        "--top-k", type=int, metavar="K", help="symbols per position; default: 8"
    )
    group.add_argument(
        "--temperature", type=float, metavar="T", help="see --kd-temperature; default: 1"
    )
    group.add_argument(
        "--teacher-dtype",
        choices=list(DTYPES),
        help="precision of the teacher; default: float32",
    )
    group.add_argument(
        "--max-tokens", type=int, help="tokens per batch; default: 2048 on a CPU, 4096 on a GPU"
    )
    group.add_argument("--cpu", action="store_true", help="do not use a GPU")
    add_worker_arguments(parser)


def run(arguments):
    if not arguments.kd_cache:
        raise ValueError("--kd-cache is empty, expected the name of a folder")
    worker = this_worker(arguments.num_shards, arguments.shard_id)
    torch.set_num_threads(threads_of(arguments, worker))
    path, data, device = (
        arguments.teacher_path,
        arguments.data,
        device_of(arguments.cpu, worker),
    )
    folders = folder_of_each(data, arguments.kd_cache, "--kd-cache")
    teacher_sha256 = sha256_of_checkpoints(path)
    splits = splits_of(arguments)
    caches = [DistributionCache(folder) for folder in folders]

    @functools.lru_cache(maxsize=None)
    def load(dtype):
        task, source = splits[0].task, sources_of_each(data, arguments.teacher_source)[0]
        how = arguments.teacher_data, device, DTYPES[dtype], task
        return load_teacher(path, *how, source=source)

    if arguments.overwrite or not all(cache.exists for cache in caches):
        teacher = load(arguments.teacher_dtype or DEFAULTS["dtype"])
        for split in splits:  # a teacher that is refused leaves no cache behind
            teacher.check_dictionaries(split.task)
    for cache, split in zip(caches, splits):  # all of them, before anything is scored
        with overwriting(cache, arguments.overwrite, worker):
            open_cache(cache, split, teacher_sha256, settings_of(arguments), device)
        print(estimate(cache, split))

    finished = [fill_and_seal(*pair, load, worker) for pair in zip(caches, splits)]
    if all(finished):
        print(next_command(arguments, caches[0].manifest["temperature"]))


def splits_of(arguments):
    """A list with the `Split` of every data-bin in DATA, as the teacher reads it."""
    path, data, name = arguments.teacher_path, arguments.data, arguments.split
    languages = arguments.source_lang, arguments.target_lang
    if arguments.teacher_source is None:
        return list(Split.load_shards_for_scoring(path, data, name, languages))
    how = {"languages": languages, "teacher_data": arguments.teacher_data}
    how["config_yaml"] = arguments.config_yaml
    return load_sourced_splits(path, data, name, arguments.teacher_source, how)


def fill_and_seal(cache, split, load, worker):
    """Score this process's chunks, and seal the cache if it is finished then.

    Returns:
        whether it is
    """
    left = fill(cache, split, load, worker)
    if left:
        print(
            f"This process is done; {left} chunks of {cache.root} are left to others. If one "
            "died, start it\nagain, or run this command without the others."
        )
        return False
    for line in seal(cache):
        print(line)
    return True


def settings_of(arguments):
    """The settings of the cache, {name: value}; None if its flag was not given."""
    names = ("top_k", "temperature", "max_tokens")
    settings = {name: getattr(arguments, name) for name in names}
    return {**settings, "dtype": arguments.teacher_dtype}


def next_command(arguments, temperature):
    """The text that says how to train with a finished cache."""
    flags = f"--kd-cache {arguments.kd_cache}"
    if arguments.split != "train":
        flags += f" --train-subset {arguments.split}"
    if temperature != 1:
        flags += f" --kd-temperature {temperature:g}"
    return (
        "Train a student with it, without the teacher:\n"
        f"  fairseq-train {arguments.data} --user-dir $(fairseq-seqkd user-dir) "
        f"--criterion word_kd \\\n      {flags} ..."
    )
