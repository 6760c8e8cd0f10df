"""Translate a test set with several checkpoints; one table of quality, size and speed.

Example:
    fairseq-seqkd evaluate data-bin --ref test.en --remove-bpe sentencepiece \\
        --checkpoints teacher=teacher.pt student=checkpoints/checkpoint_best.pt
"""

import os

from fairseq_seqkd.evaluate.measure import evaluate
from fairseq_seqkd.evaluate.table import markdown
from fairseq_seqkd.shards import atomic_file


def add_arguments(parser):
    parser.add_argument("data", help="data-bin that fairseq-preprocess wrote")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        required=True,
        metavar="NAME=PATH",
        help="what to compare; the first is what the others are measured against",
    )
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument(
        "--beams",
        nargs="+",
        type=int,
        default=[1, 5],
        help="beam sizes, 1 is greedy; default: 1 5",
    )
    parser.add_argument(
        "--remove-bpe", help="as in fairseq-generate, such as sentencepiece or '@@ '"
    )
    parser.add_argument(
        "--ref",
        help="file with one reference a line, as people write it (default: the split's "
        "gold target without subwords)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="times that every model translates, in turns; the median speed is told; "
        "default: %(default)s",
    )
    parser.add_argument("--out", help="file to write the table to, as Markdown")


def run(arguments):
    rows = evaluate(
        parse_checkpoints(arguments.checkpoints),
        arguments.data,
        arguments.split,
        arguments.beams,
        arguments.remove_bpe,
        arguments.ref,
        arguments.rounds,
    )
    table = markdown(rows)
    print(table)
    if arguments.out:
        with atomic_file(arguments.out) as file:
            file.write((table + "\n").encode())


def parse_checkpoints(arguments):
    """{name: path} from NAME=PATH, or from PATH, which is then named after its file."""
    checkpoints = {}
    for argument in arguments:
        name, _, path = argument.rpartition("=")
        name = name or os.path.splitext(os.path.basename(path))[0]
        if name in checkpoints:
            raise ValueError(f"--checkpoints has {name!r} twice: name them NAME=PATH")
        checkpoints[name] = path
    return checkpoints
