"""Translate a split with the teacher, into a store of n-best lists and a data-bin to train on.

After an interruption, run it again and it continues. Several processes share the work if they
are started by torchrun or Slurm, or by hand with --num-shards and --shard-id; the one that
finishes last builds the data-bin. If the teacher finished few of its translations, that process
ends with exit status 3 (--accept-unfinished).

DATA1:DATA2 are translated into --pseudo-targets DIR1:DIR2, one store each.

With --teacher-source FOLDER the teacher reads the sentences of another data-bin. DATA may be
speech then, and FOLDER its transcripts: DIR/best-speech has manifests to train on.

--text translates plain text in place of the split. Lines that occur twice or stand in --exclude
are left out, the others cut into subwords and binarised with the dictionaries of DATA.
--teacher-ct2 takes a teacher that is no fairseq model, with subwords of its own.

Example:
    fairseq-seqkd generate data-bin --teacher-path teacher.pt --pseudo-targets pseudo
    fairseq-seqkd generate data-bin --text mono.de.gz --exclude test.de --spm-model spm.model \\
        --teacher-path teacher.pt --pseudo-targets mono
    fairseq-seqkd generate data-bin --source-text train.de --spm-model spm.model \\
        --teacher-ct2 opus-de-en --teacher-spm opus-de-en/source.spm opus-de-en/target.spm \\
        --teacher-source-suffix '</s>' --pseudo-targets opus
    torchrun --nproc_per_node 8 --max_restarts 3 -m fairseq_seqkd.cli.main generate data-bin \\
        --teacher-path teacher.pt --pseudo-targets pseudo --beam 35 \\
        --select closest --remove-bpe sentencepiece
"""

import contextlib
import functools

from fairseq import utils

from fairseq_seqkd.chunked.workers import this_worker
from fairseq_seqkd.cli.external import (
    add_external_arguments,
    check_external_flags,
    external_of,
    prepare_lines,
)
from fairseq_seqkd.cli.speech import next_command_of_speech, speech_of
from fairseq_seqkd.cli.stores import (
    add_data_arguments,
    add_overwrite_argument,
    add_teacher_arguments,
    add_teacher_source_arguments,
    add_worker_arguments,
    build_and_report,
    device_of,
    folders_of,
    next_command,
    overwriting,
    stores_of,
    threads_of,
)
from fairseq_seqkd.cli.targets import add_target_spec_arguments
from fairseq_seqkd.cli.text import add_text_arguments, text_of
from fairseq_seqkd.models.loading import TEACHER
from fairseq_seqkd.pseudo.generate import (
    chunks_left,
    open_store,
    translate,
    translate_remaining,
)
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.pseudo.source_text import has_text, prepare_text, text_summary
from fairseq_seqkd.pseudo.store import PseudoTargetStore
from fairseq_seqkd.teacher import load_sources, load_teacher, sources_of_each


def add_arguments(parser):
    add_data_arguments(parser)
    add_teacher_arguments(parser, unless="for a finished store")
    add_teacher_source_arguments(parser)
    add_overwrite_argument(parser)
    add_text_arguments(parser)
    add_external_arguments(parser)
    _add_search_arguments(parser)
    _add_engine_arguments(parser)
    add_worker_arguments(parser)
    add_target_spec_arguments(parser)


def _add_search_arguments(parser):
    group = parser.add_argument_group("search (the defaults are those of a new store)")
    group.add_argument(
        "--beam",
        type=int,
        help="default: 5; 35 with --select closest or mbr, 1 with --sampling",
    )
    group.add_argument("--nbest", type=int, help="hypotheses to keep; default: --beam")
    group.add_argument("--lenpen", type=float, help="length penalty; default: 1")
    group.add_argument(
        "--max-len-a",
        type=float,
        help="a target has at most a * source length + b tokens; default: 0",
    )
    group.add_argument("--max-len-b", type=int, help="see --max-len-a; default: 200")
    group.add_argument(
        "--sampling",
        action="store_true",
        default=None,
        help="draw --beam samples per sentence instead of a beam search",
    )
    group.add_argument(
        "--sampling-topk", type=int, metavar="K", help="sample from the K most probable tokens"
    )
    group.add_argument(
        "--sampling-topp",
        type=float,
        metavar="P",
        help="sample from the fewest tokens whose probabilities sum to P",
    )
    group.add_argument("--seed", type=int, help="seed of the samples; default: 1")


def _add_engine_arguments(parser):
    group = parser.add_argument_group("engine (the defaults are those of a new store)")
    group.add_argument(
        "--engine",
        choices=["auto", "fairseq", "ctranslate2"],
        help="default: auto, CTranslate2 if it is installed and can convert the teacher",
    )
    group.add_argument(
        "--compute-type",
        help="float32, float16, or with CTranslate2 int8; default: auto, with CTranslate2 and "
        "many sentences the fastest that translates some of them as float32 does, else float32",
    )
    group.add_argument(
        "--no-check",
        action="store_true",
        help="do not compare the first of CTranslate2's translations with fairseq's",
    )
    group.add_argument(
        "--max-tokens",
        type=int,
        help="source tokens per batch; default: as for --compute-type, what is fastest",
    )
    group.add_argument("--cpu", action="store_true", help="do not use a GPU")


def run(arguments):
    worker = this_worker(arguments.num_shards, arguments.shard_id)
    check_numbers(arguments)
    speech, arguments = speech_of(arguments)
    stores, recipe = open_stores(arguments, worker, speech)
    finished = [
        translate_and_build(store, split, spec, recipe, worker, arguments)
        for store, split, spec in stores
    ]
    if not all(finished):
        return
    if speech is None:
        print(next_command(arguments, *stores[-1][1:]))
        return
    for store, split, spec in stores:
        print(*speech.build(store, split, spec), sep="\n")
        print(next_command_of_speech(store, spec, arguments.config_yaml))


def open_stores(arguments, worker, speech=None):
    """Open or make all stores, before anything is translated.

    Args:
        arguments: of the command
        worker: `Worker` of this process
        speech: `Speech`, if DATA are its transcripts
    Returns:
        a list of (`PseudoTargetStore`, `PairSplit`, `TargetSpec`), and the `Recipe`
    """
    check_external_flags(arguments)
    check_source_flags(arguments)
    folders, text = folders_of(arguments), text_of(arguments)
    how = settings_of(arguments, worker)
    external = external_of(arguments, how) if arguments.teacher_ct2 else None
    with contextlib.ExitStack() as stack:
        for root in folders:
            replaced = overwriting(PseudoTargetStore(root), arguments.overwrite, worker)
            stack.enter_context(replaced)
        if text:
            languages = arguments.source_lang, arguments.target_lang
            prepare_text(folders[0], text, arguments.data, languages)
        splits = list(stores_of(arguments))
        for _, split, spec in splits if speech else ():
            speech.check(split, spec)
        prepare_lines(arguments, *splits[0][:2])
        recipe = external or recipe_of(arguments, splits[0][1].task, how)
        stores = [
            (open_store(root, split, spec, recipe), split, spec) for root, split, spec in splits
        ]
    return stores, recipe


def translate_and_build(store, split, spec, recipe, worker, arguments):
    """Translate this process's chunks, and build the data-bin if the store is finished then.

    Returns:
        whether it is
    """
    translate(store, split, recipe, worker)
    left = chunks_left(store, split, worker)
    if left:
        print(
            f"This process is done; {left} chunks of {store.root} are left to others. The last "
            "process\nbuilds the data-bin. If one died, start it again, or run this command "
            "without the others."
        )
        return False
    translate_remaining(store, split, recipe)
    for line in text_summary(store.root) if has_text(store.root) else ():
        print(line)
    build_and_report(store, split, spec, arguments)
    return True


def check_source_flags(arguments):
    """Refuse --teacher-source with flags that name the teacher's text themselves."""
    for name in ("text", "teacher_ct2"):
        if arguments.teacher_source and getattr(arguments, name):
            raise ValueError(
                f"--teacher-source with --{name.replace('_', '-')}, which says what the "
                "teacher reads: leave one of them out"
            )


def check_numbers(arguments):
    """Refuse numbers below 1."""
    for name in ("beam", "nbest", "max_tokens", "max_len_b"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}, expected 1 or more")


def settings_of(arguments, worker):
    """The settings of any `Recipe` that the flags describe, by name."""
    names = ("beam", "nbest", "lenpen", "max_len_a", "max_len_b")
    sampling = ("sampling", "sampling_topk", "sampling_topp", "seed")
    compute_type = None if arguments.compute_type == "auto" else arguments.compute_type
    engine = {"name": arguments.engine, "compute_type": compute_type}
    return {
        "search": {name: getattr(arguments, name) for name in (*names, *sampling)},
        "engine": {**engine, "max_tokens": arguments.max_tokens},
        "device": device_of(arguments.cpu, worker),
        "threads": threads_of(arguments, worker),
    }


def recipe_of(arguments, task, how):
    """Build the `Recipe` of --teacher-path; ``how`` are its `settings_of` the flags."""

    path, data, name = (getattr(arguments, f"teacher_{n}") for n in ("path", "data", "source"))

    def load(device, dtype):
        role = TEACHER._replace(dtype_flag="--compute-type")
        source = sources_of_each(arguments.data, name)[0]
        teacher = load_teacher(path, data, device, dtype, task, role, source=source)
        teacher.check_dictionaries(task)
        return teacher

    @functools.lru_cache(maxsize=1)
    def sources():
        found, _ = load_sources(path, data, task, arguments.data, name)
        return dict(zip(utils.split_paths(arguments.data), found))

    how = {**how, "load_sources": sources if name else None, "check": not arguments.no_check}
    return Recipe(path, load_teacher=load, **how)
