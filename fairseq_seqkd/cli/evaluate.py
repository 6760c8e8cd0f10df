"""Translate a test set with several checkpoints: quality, speed and size side by side.

Every model translates greedily and with a beam, with fairseq and, if it is installed and can
convert the model, with CTranslate2 in float32 and int8. --out also writes the report to files:
report.md, report.json, report.csv, report.html, the plots as SVG and PNG, and all outputs.

Example:
    fairseq-seqkd evaluate data-bin --ref test.en --remove-bpe sentencepiece --out report \\
        --checkpoints teacher=teacher.pt student=checkpoints/checkpoint_best.pt
"""

import os
import re

from fairseq_seqkd.cli.files import check_folder
from fairseq_seqkd.cli.stores import add_split_arguments
from fairseq_seqkd.cli.translate import DRAFT_TOKENS
from fairseq_seqkd.decoding.refinement_engine import DEFAULT_MAX_ITER
from fairseq_seqkd.evaluate.curves import read_joined_curves
from fairseq_seqkd.evaluate.engines import DEFAULT_ENGINES, SHORTLIST
from fairseq_seqkd.evaluate.files import write_report
from fairseq_seqkd.evaluate.measure import evaluate
from fairseq_seqkd.evaluate.settings import Settings
from fairseq_seqkd.evaluate.table import render_markdown
from fairseq_seqkd.evaluate.tuning import GRID


def add_arguments(parser):
    _add_models(parser)
    _add_decoding(parser)
    _add_search(parser)
    _add_text(parser)
    _add_drafts(parser)
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="timed rounds, in which the models take turns, after one that warms up; the "
        "median speed is reported; default: %(default)s",
    )
    parser.add_argument(
        "--logs",
        nargs="+",
        metavar="NAME=FILE",
        help="output of fairseq-train, for plots of the validation curves; NAME=FILE1,FILE2 "
        "for a training in two steps, NAME=FILE1@UPDATE,FILE2 if the second step began with "
        "the first step's checkpoint of that update",
    )
    parser.add_argument(
        "--side-by-side",
        nargs=2,
        metavar="NAME[:beamN]",
        help="two rows: the page shows the sentences on which they differ most; default: the "
        "row that all are compared with, and the best row of another model",
    )
    parser.add_argument("--out", metavar="DIR", help="folder to write the report to")


def _add_models(parser):
    parser.add_argument("data", help="data-bin that fairseq-preprocess wrote")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        required=True,
        metavar="NAME=PATH",
        help="the models to compare; NAME=PATH1,PATH2 for several seeds of one model: its "
        "scores are means over them",
    )
    parser.add_argument(
        "--against",
        action="append",
        metavar="NAME[:beamN]",
        help="a row that all are compared with, such as teacher:beam5; may be given several "
        "times; without a beam its largest is meant; default: the first model's largest beam",
    )
    parser.add_argument(
        "--data-of",
        nargs="+",
        metavar="NAME=DATA",
        help="data-bin of a model with other dictionaries: the same lines, binarised with them",
    )
    add_split_arguments(
        parser,
        split="test",
        help="the splits to translate, separated by commas, such as test,test1: scores are of "
        "each and of all sentences together; default: %(default)s",
    )


def _add_decoding(parser):
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
        help="fairseq, or ctranslate2:TYPE with a type such as float32, int8, float16, or "
        f"ctranslate2:TYPE{SHORTLIST}; default: those of {', '.join(DEFAULT_ENGINES)} that can "
        f"be used, and ctranslate2:int8{SHORTLIST} with --shortlist",
    )
    parser.add_argument(
        "--shortlist",
        nargs="+",
        metavar="NAME=DATA",
        help="vocabulary map of a model, counted from the training pairs of a data-bin or "
        "store, or a finished vmap.txt, as in export --shortlist",
    )
    parser.add_argument(
        "--devices",
        nargs="+",
        choices=["cpu", "cuda"],
        help="default: the CPU, and a GPU if there is one",
    )
    parser.add_argument(
        "--threads", type=int, help="number of CPU threads; default: torch's own"
    )


def _add_search(parser):
    length_penalty = parser.add_mutually_exclusive_group()
    length_penalty.add_argument(
        "--lenpen",
        type=float,
        help="length penalty of the beams: the exponent of the length in a hypothesis's score, "
        "above 1 favours long ones; default: 1",
    )
    length_penalty.add_argument(
        "--tune-lenpen",
        metavar="SPLIT",
        help=f"the best length penalty of each model and beam, from {GRID[0]} to {GRID[-1]}, "
        "by its BLEU on this split of DATA, such as valid",
    )
    parser.add_argument(
        "--max-len-a",
        type=float,
        default=0,
        help="at most a * source length + b target tokens; default: 0",
    )
    parser.add_argument("--max-len-b", type=int, default=200, help="default: 200")
    parser.add_argument(
        "--iter-decode-max-iter",
        type=int,
        metavar="N",
        help="iterations of non-autoregressive models after the first, as in fairseq-generate; "
        f"default: {DEFAULT_MAX_ITER}",
    )


def _add_text(parser):
    parser.add_argument(
        "--remove-bpe", help="as in fairseq-generate, such as sentencepiece or '@@ '"
    )
    parser.add_argument(
        "--spm-model",
        metavar="FILE",
        help="the sentencepiece model that cut the text, in place of --remove-bpe",
    )
    parser.add_argument(
        "--moses", metavar="LANG", help="also undo Moses tokenisation of this language"
    )
    parser.add_argument(
        "--ref",
        nargs="+",
        metavar="FILE",
        help="text file with one plain reference a line, one for each split in their order "
        "(default: the splits' gold targets, subwords joined)",
    )


def _add_drafts(parser):
    parser.add_argument(
        "--draft-for",
        metavar="NAME",
        help="also measure all other models as drafts of this one (speculative decoding)",
    )
    parser.add_argument(
        "--draft-tokens",
        type=int,
        metavar="K",
        help=f"tokens that they draft a round; default: {DRAFT_TOKENS}",
    )


def run(arguments):
    check_arguments(arguments)
    logs = parse_named_paths(arguments.logs or [], "--logs", separator=",")
    curves = {name: read_joined_curves(paths) for name, paths in logs.items()}
    report, texts = evaluate(
        parse_named_paths(arguments.checkpoints, "--checkpoints"),
        Settings(
            data=arguments.data,
            split=arguments.split,
            languages=(arguments.source_lang, arguments.target_lang),
            data_of=parse_named_paths(arguments.data_of or [], "--data-of"),
            engines=arguments.engines,
            shortlists=parse_named_paths(arguments.shortlist or [], "--shortlist"),
            devices=arguments.devices,
            beams=sorted(set(arguments.beams)),
            lenpen=arguments.lenpen,
            tune_lenpen=arguments.tune_lenpen,
            max_len_a=arguments.max_len_a,
            max_len_b=arguments.max_len_b,
            max_iter=arguments.iter_decode_max_iter,
            remove_bpe=arguments.remove_bpe,
            moses=arguments.moses,
            spm_model=arguments.spm_model,
            reference_files=arguments.ref,
            against=tuple(arguments.against or ()),
            side_by_side=tuple(arguments.side_by_side or ()),
            rounds=arguments.rounds,
            threads=arguments.threads,
            draft_for=arguments.draft_for,
            draft_tokens=arguments.draft_tokens or DRAFT_TOKENS,
        ),
    )
    report.curves = curves
    report.command = arguments.command_line
    print(render_markdown(report))
    if arguments.out:
        names = write_report(report, arguments.out, texts)
        print(f"\nWritten to {arguments.out}: {', '.join(names)}")


def check_arguments(arguments):
    """Raise a ValueError for numbers below 1 and a folder that cannot be written to."""
    names = ("rounds", "threads", "draft_tokens")
    numbers = [(f"--{name.replace('_', '-')}", getattr(arguments, name)) for name in names]
    for flag, value in numbers + [("--beams", beam) for beam in arguments.beams]:
        if value is not None and value < 1:
            raise ValueError(f"{flag} is {value}, expected 1 or more")
    if arguments.draft_tokens is not None and arguments.draft_for is None:
        raise ValueError("--draft-tokens needs --draft-for NAME: it says for which model")
    if arguments.out:
        check_folder(arguments.out)


def parse_named_paths(arguments, flag, separator=f"{os.pathsep},"):
    """{name: path} from arguments NAME=PATH or PATH; a path alone is named after its files.

    Args:
        arguments: of the flag
        flag: for error messages
        separator: characters between the files of a path
    """
    paths = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        exists = os.path.exists(argument)
        files = [argument] if exists else re.split(f"[{separator}]", argument)
        if not equals or os.path.exists(files[0]):
            stems = [os.path.splitext(os.path.basename(file))[0] for file in files]
            name, path = "+".join(stems), argument
        if name in paths:
            raise ValueError(f"{flag} has {name!r} twice: name them NAME=PATH")
        paths[name] = path
    return paths
