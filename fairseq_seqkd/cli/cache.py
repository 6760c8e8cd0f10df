"""Write down what the teacher says at every target position of a split, for --kd-cache.

Word-level distillation then needs no teacher: a training with --kd-cache DIR costs what plain
cross-entropy does. For every position the cache has the teacher's most probable symbols,
their log-probabilities, and the mass of all others. Run it again after an interruption and it
goes on where it was. Several processes share the work under torchrun and under Slurm, or by
hand with --num-shards and --shard-id.

DATA is a data-bin with the teacher's dictionaries, such as one of a store of pseudo-targets.

Example:
    fairseq-seqkd cache data-bin --teacher-path teacher.pt --kd-cache cache
    fairseq-seqkd cache pseudo/best --teacher-path teacher.pt --kd-cache cache-best --top-k 16
"""

import torch

from fairseq_seqkd.cache.build import estimate, fill, open_cache, seal
from fairseq_seqkd.cache.store import DistributionCache
from fairseq_seqkd.chunked.workers import this_worker
from fairseq_seqkd.cli.stores import add_worker_arguments, anew, device_of, threads_of
from fairseq_seqkd.databin import Split
from fairseq_seqkd.models.adapters import DTYPES
from fairseq_seqkd.models.checkpoints import sums_of_checkpoints
from fairseq_seqkd.teacher import load_teacher


def add_arguments(parser):
    parser.add_argument("data", metavar="DATA", help="data-bin that fairseq-preprocess wrote")
    parser.add_argument("--kd-cache", metavar="DIR", required=True, help="the cache's folder")
    parser.add_argument(
        "--teacher-path",
        metavar="T",
        required=True,
        help="the teacher's checkpoint, or several separated by colons",
    )
    parser.add_argument("--teacher-data", help="folder with the teacher's dictionaries")
    parser.add_argument("--split", default="train", help="default: %(default)s")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the cache that is there, and start anew",
    )
    group = parser.add_argument_group("what is kept (default: what the cache has)")
    group.add_argument("--top-k", type=int, metavar="K", help="symbols; for a new cache 8")
    group.add_argument(
        "--temperature", type=float, metavar="T", help="see --kd-temperature; for a new one 1"
    )
    group.add_argument(
        "--teacher-dtype",
        choices=list(DTYPES),
        help="how the teacher computes; for a new cache float32",
    )
    group.add_argument(
        "--max-tokens",
        type=int,
        help="tokens in a batch; for a new one 2048 on a CPU, 4096 on a GPU",
    )
    group.add_argument("--cpu", action="store_true", help="do without a GPU that is there")
    add_worker_arguments(parser)


def run(arguments):
    if not arguments.kd_cache:
        raise ValueError("--kd-cache is empty, expected the name of a folder")
    worker = this_worker(arguments.num_shards, arguments.shard_id)
    torch.set_num_threads(threads_of(arguments, worker))
    teacher_sums = sums_of_checkpoints(arguments.teacher_path)
    split = Split.load_for_scoring(arguments.teacher_path, arguments.data, arguments.split)
    settings = {
        "top_k": arguments.top_k,
        "temperature": arguments.temperature,
        "dtype": arguments.teacher_dtype,
        "max_tokens": arguments.max_tokens,
    }
    cache = DistributionCache(arguments.kd_cache)

    device = device_of(arguments.cpu, worker)

    def load(dtype):
        path, data = arguments.teacher_path, arguments.teacher_data
        return load_teacher(path, data, device, DTYPES[dtype], split.task)

    with anew(cache, arguments.overwrite, worker):
        open_cache(cache, split, teacher_sums, settings, device)
    print(estimate(cache, split))
    left = fill(cache, split, load, worker)
    if left:
        print(
            f"This process is done; {left} chunks of {cache.root} are left to others. If one "
            "died, start it\nagain, or this command alone."
        )
        return
    for line in seal(cache):
        print(line)
    print(next_command(arguments, cache.manifest["temperature"]))


def next_command(arguments, temperature):
    """What to type when the cache is there."""
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
