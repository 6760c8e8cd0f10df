"""Make a round of near-policy distillation: text of the student, scored once by the teacher.

The student translates the sources of DATA by the fast engine, and the teacher scores its
translations. A training reads both from the folder of --out at the price of cross-entropy. When
the student has moved on, a new round begins with the newer checkpoint; examples/near_policy.sh
runs several.

After an interruption, run it again and it continues. A round that was begun with another
student, teacher, data or options is refused. Several processes share the work if they are
started by torchrun or Slurm, or by hand with --num-shards and --shard-id. All have to run at
once, since the teacher scores when the student has finished.

Example:
    fairseq-seqkd round data-bin --student student.pt --teacher-path teacher.pt --out rounds/1
    fairseq-seqkd round data-bin --student rounds/1/training/checkpoint_last.pt \\
        --teacher-path teacher.pt --out rounds/2 --sentences 20000 --seed 2 \\
        --filter-score-percentile 5 --filter-length-ratio 3 --mix-fraction 0.25
"""

from fairseq_seqkd.chunked.workers import this_worker
from fairseq_seqkd.cli.stores import (
    add_teacher_arguments,
    add_worker_arguments,
    device_of,
    threads_of,
)


def add_arguments(parser):
    parser.add_argument("data", metavar="DATA", help="data-bin with the sources to translate")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the round")
    parser.add_argument(
        "--student", metavar="S", required=True, help="the student's present checkpoint"
    )
    parser.add_argument("--student-data", help="folder with the student's dictionaries")
    add_teacher_arguments(parser)
    parser.add_argument("--source-lang", "-s", help="default: inferred from the file names")
    parser.add_argument("--target-lang", "-t", help="default: inferred from the file names")
    _add_student_arguments(parser)
    _add_pair_arguments(parser)
    _add_scoring_arguments(parser)
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    add_worker_arguments(parser)


def _add_student_arguments(parser):
    group = parser.add_argument_group("the student's text (the defaults are a new round's)")
    group.add_argument(
        "--sentences",
        type=int,
        metavar="N",
        help="translate so many of the sentences, drawn by --seed; default: all",
    )
    group.add_argument("--beam", type=int, help="default: 1, greedy decoding")
    group.add_argument(
        "--sampling",
        action="store_true",
        default=None,
        help="draw from the student's distribution",
    )
    group.add_argument("--sampling-topk", type=int, metavar="K", help="as in generate")
    group.add_argument("--sampling-topp", type=float, metavar="P", help="as in generate")
    group.add_argument("--seed", type=int, help="give every round another one; default: 1")
    group.add_argument("--max-len-a", type=float, help="as in generate; default: 0")
    group.add_argument("--max-len-b", type=int, help="as in generate; default: 200")
    group.add_argument(
        "--engine", choices=["auto", "fairseq", "ctranslate2"], help="as in generate"
    )
    group.add_argument("--compute-type", help="as in generate")
    group.add_argument("--no-check", action="store_true", help="as in generate")
    group.add_argument(
        "--accept-unfinished", type=float, metavar="FRACTION", help="as in generate"
    )


def _add_pair_arguments(parser):
    group = parser.add_argument_group("filtering and mixing (the defaults are a new round's)")
    group.add_argument(
        "--filter-length-ratio",
        type=float,
        metavar="R",
        help="drop pairs of which one side is more than R times as long as the other",
    )
    group.add_argument(
        "--filter-score-percentile",
        type=float,
        metavar="P",
        help="drop the P percent of the student's pairs that the teacher scores worst",
    )
    group.add_argument(
        "--mix-fraction",
        type=float,
        metavar="F",
        help="mix in pairs of --mix-with, until they are this fraction of all; default: 0",
    )
    group.add_argument(
        "--mix-with",
        metavar="DATABIN",
        help="such as a store's data-bin with the teacher's translations; default: DATA",
    )


def _add_scoring_arguments(parser):
    group = parser.add_argument_group("the teacher's scoring (the defaults are a new round's)")
    group.add_argument(
        "--top-k", type=int, metavar="K", help="symbols per position; default: 8"
    )
    group.add_argument(
        "--temperature", type=float, metavar="T", help="see --kd-temperature; default: 1"
    )
    group.add_argument("--teacher-dtype", help="precision of the teacher; default: float32")
    group.add_argument("--max-tokens", type=int, help="tokens per batch, as in cache")


def run(arguments):
    from fairseq_seqkd.databin import open_split
    from fairseq_seqkd.rounds.make import make_round
    from fairseq_seqkd.rounds.models import RoundModels
    from fairseq_seqkd.rounds.report import summary
    from fairseq_seqkd.rounds.round import DEFAULTS, open_round

    worker = this_worker(arguments.num_shards, arguments.shard_id)
    languages = arguments.source_lang, arguments.target_lang
    split = open_split(arguments.data, "train", *languages)
    languages = split.source_lang, split.target_lang
    other = open_split(arguments.mix_with, "train", *languages) if arguments.mix_with else split
    models = RoundModels(
        arguments.student,
        arguments.teacher_path,
        arguments.student_data,
        arguments.teacher_data,
        device_of(arguments.cpu, worker),
        threads_of(arguments, worker),
        check=not arguments.no_check,
    )
    options = {name: getattr(arguments, name) for name in DEFAULTS}
    checkpoints = models.student, models.teacher
    round_ = open_round(arguments.out, split, other, *checkpoints, options)
    report = make_round(round_, split, other, models, worker, arguments.accept_unfinished)
    for line in summary(round_, report):
        print(line)
    print(next_command(round_))


def next_command(round_):
    """The text that says how to train on a finished round."""
    temperature = round_.options["temperature"]
    return (
        "Train the student on it, without the teacher:\n"
        f"  fairseq-train {round_.databin} --user-dir $(fairseq-seqkd user-dir) --task "
        f"translation \\\n      --criterion distill --kd-alpha 1 --kd-cache {round_.cache}"
        + (f" --kd-temperature {temperature:g}" if temperature != 1 else "")
        + " ..."
    )
