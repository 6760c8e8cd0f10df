"""Translate a test set with several checkpoints: quality, speed and size side by side.

Every model translates greedily and with a beam, through fairseq and, if it is installed and can
convert the model, through CTranslate2 in float32 and int8. With --out there are files as well:
report.md, report.json, report.csv, and report.html with pictures.

Example:
    fairseq-seqkd evaluate data-bin --ref test.en --remove-bpe sentencepiece --out report \\
        --checkpoints teacher=teacher.pt student=checkpoints/checkpoint_best.pt
"""

import os

from fairseq_seqkd.cli.files import check_folder
from fairseq_seqkd.evaluate import files
from fairseq_seqkd.evaluate.curves import read_curves
from fairseq_seqkd.evaluate.engines import DEFAULT_ENGINES
from fairseq_seqkd.evaluate.measure import Settings, evaluate
from fairseq_seqkd.evaluate.table import markdown


def add_arguments(parser):
    parser.add_argument("data", help="data-bin that fairseq-preprocess wrote")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        required=True,
        metavar="NAME=PATH",
        help="what to compare; the first is what the others are measured against",
    )
    parser.add_argument(
        "--data-of",
        nargs="+",
        metavar="NAME=DATA",
        help="for a model with other dictionaries: the same lines, binarised with these",
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
        "--engines",
        nargs="+",
        metavar="ENGINE",
        help="what decodes: fairseq, or ctranslate2:TYPE with a type such as float32, int8, "
        f"float16; default: those of {', '.join(DEFAULT_ENGINES)} that can be had",
    )
    parser.add_argument(
        "--devices",
        nargs="+",
        choices=["cpu", "cuda"],
        help="default: the CPU, and a GPU that is there",
    )
    parser.add_argument("--threads", type=int, help="of the processor; default: torch's choice")
    parser.add_argument(
        "--remove-bpe", help="as in fairseq-generate, such as sentencepiece or '@@ '"
    )
    parser.add_argument(
        "--moses", metavar="LANG", help="undo Moses tokenisation of this language as well"
    )
    parser.add_argument(
        "--ref",
        help="file with one reference a line, as people write it (default: the split's "
        "gold target without subwords)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="times that every model translates, in turns, after once to warm up; the median "
        "speed is told; default: %(default)s",
    )
    parser.add_argument(
        "--logs",
        nargs="+",
        metavar="NAME=FILE",
        help="what fairseq-train printed, for curves of the trainings",
    )
    parser.add_argument("--out", metavar="DIR", help="folder to write the report to")


def run(arguments):
    check(arguments)
    logs = named(arguments.logs or [], "--logs")
    curves = {name: read_curves(path) for name, path in logs.items()}
    report = evaluate(
        named(arguments.checkpoints, "--checkpoints"),
        Settings(
            data=arguments.data,
            split=arguments.split,
            data_of=named(arguments.data_of or [], "--data-of"),
            engines=arguments.engines,
            devices=arguments.devices,
            beams=sorted(set(arguments.beams)),
            remove_bpe=arguments.remove_bpe,
            moses=arguments.moses,
            reference_file=arguments.ref,
            rounds=arguments.rounds,
            threads=arguments.threads,
        ),
    )
    report.curves = curves
    report.command = arguments.command_line
    print(markdown(report))
    if arguments.out:
        names = files.write(report, arguments.out)
        print(f"\nWritten to {arguments.out}: {', '.join(names)}")


def check(arguments):
    """Refuse numbers that mean nothing, and a folder that cannot be one."""
    numbers = [("--rounds", arguments.rounds), ("--threads", arguments.threads)]
    for flag, value in numbers + [("--beams", beam) for beam in arguments.beams]:
        if value is not None and value < 1:
            raise ValueError(f"{flag} is {value}, expected 1 or more")
    if arguments.out:
        check_folder(arguments.out)


def named(arguments, flag):
    """{name: path} from NAME=PATH, or from PATH, which is then named after its files."""
    paths = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or os.path.exists(argument.split(os.pathsep)[0]):
            files = argument.split(os.pathsep)
            stems = [os.path.splitext(os.path.basename(file))[0] for file in files]
            name, path = "+".join(stems), argument
        if name in paths:
            raise ValueError(f"{flag} has {name!r} twice: name them NAME=PATH")
        paths[name] = path
    return paths
