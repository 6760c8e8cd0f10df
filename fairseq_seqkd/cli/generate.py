"""Let the teacher translate a split: a store of n-best lists, and a data-bin to train on.

Run it again after an interruption and it goes on where it was. Several processes share the
work under torchrun and under Slurm, or by hand with --num-shards and --shard-id; the one that
finishes last builds the data-bin.

Example:
    fairseq-seqkd generate data-bin --teacher-path teacher.pt --pseudo-targets pseudo
    torchrun --nproc-per-node 8 --max-restarts 3 -m fairseq_seqkd.cli.main generate data-bin \\
        --teacher-path teacher.pt --pseudo-targets pseudo --beam 35 \\
        --select closest --remove-bpe sentencepiece
"""

from fairseq_seqkd.chunked.workers import this_worker
from fairseq_seqkd.cli.stores import (
    add_data_arguments,
    add_target_spec_arguments,
    add_worker_arguments,
    anew,
    device_of,
    finish,
    split_of,
    target_spec_of,
    threads_of,
)
from fairseq_seqkd.pseudo.generate import Recipe, complete, left_over, open_store, translate
from fairseq_seqkd.pseudo.store import PseudoTargetStore
from fairseq_seqkd.teacher import load_teacher


def add_arguments(parser):
    add_data_arguments(parser)
    parser.add_argument(
        "--teacher-path",
        metavar="T",
        help="the teacher's checkpoint, or several separated by colons; a finished store "
        "does without",
    )
    parser.add_argument("--teacher-data", help="folder with the teacher's dictionaries")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the store that is there, and start anew",
    )
    group = parser.add_argument_group("searching (default: what the store has)")
    group.add_argument("--beam", type=int, help="new: 5, 35 for --select closest, 1 sample")
    group.add_argument("--nbest", type=int, help="hypotheses kept; for a new store the beam")
    group.add_argument("--lenpen", type=float, help="length penalty; for a new store 1")
    group.add_argument(
        "--max-len-a", type=float, help="at most a * source length + b tokens; 0"
    )
    group.add_argument("--max-len-b", type=int, help="see --max-len-a; for a new store 200")
    group.add_argument(
        "--sampling",
        action="store_true",
        default=None,
        help="draw --beam samples a sentence, in place of a beam search",
    )
    group.add_argument(
        "--sampling-topk", type=int, metavar="K", help="among the K most probable"
    )
    group.add_argument(
        "--sampling-topp", type=float, metavar="P", help="among the fewest with probability P"
    )
    group.add_argument("--seed", type=int, help="of the samples; for a new store 1")
    group = parser.add_argument_group("decoding (default: what the store has)")
    group.add_argument(
        "--engine",
        choices=["auto", "fairseq", "ctranslate2"],
        help="auto is CTranslate2 if it is installed and can convert the teacher",
    )
    group.add_argument(
        "--compute-type",
        help="float32, float16, or with CTranslate2 int8; for a new store float32",
    )
    group.add_argument("--max-tokens", type=int, help="source tokens in a batch")
    group.add_argument("--cpu", action="store_true", help="do without a GPU that is there")
    add_worker_arguments(parser)
    add_target_spec_arguments(parser)


def run(arguments):
    worker = this_worker(arguments.num_shards, arguments.shard_id)
    threads = threads_of(arguments, worker)
    split = split_of(arguments)
    spec = target_spec_of(arguments, split)
    check_numbers(arguments)
    recipe = recipe_of(arguments, split.task, threads, worker)
    with anew(PseudoTargetStore(arguments.pseudo_targets), arguments.overwrite, worker):
        store = open_store(arguments.pseudo_targets, split, spec, recipe)
    translate(store, split, recipe, worker)
    left = left_over(store, split)
    if left:
        print(
            f"This process is done; {left} chunks of {store.root} are left to others, and "
            "the last of\nthem builds the data-bin. If one died, start it again, or this "
            "command alone."
        )
        return
    complete(store, split, recipe)
    finish(store, split, spec, threads)


def check_numbers(arguments):
    """Refuse numbers that mean nothing."""
    for name in ("beam", "nbest", "max_tokens", "max_len_b"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}, expected 1 or more")


def recipe_of(arguments, task, threads, worker):
    """The `Recipe` that the flags ask for."""

    def load(device, dtype):
        path, data = arguments.teacher_path, arguments.teacher_data
        teacher = load_teacher(path, data, device, dtype, student_task=task)
        teacher.check_dictionaries(task)
        return teacher

    names = ("beam", "nbest", "lenpen", "max_len_a", "max_len_b")
    sampling = ("sampling", "sampling_topk", "sampling_topp", "seed")
    return Recipe(
        teacher_path=arguments.teacher_path,
        load_teacher=load,
        search={name: getattr(arguments, name) for name in (*names, *sampling)},
        engine={
            "name": arguments.engine,
            "compute_type": arguments.compute_type,
            "max_tokens": arguments.max_tokens,
        },
        device=device_of(arguments.cpu, worker),
        threads=threads,
    )
