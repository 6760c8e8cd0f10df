"""Export a student for stock fairseq, for CTranslate2, or as a sparse file.

fairseq: a checkpoint that stock fairseq loads without this package, without optimizer state.
ctranslate2: a folder that needs neither fairseq nor torch, and translates several times faster.
sparse: a file of the non-zero weights, much smaller than a pruned checkpoint; the same command
turns it into an ordinary checkpoint again, equal bit for bit.

Example:
    fairseq-seqkd export checkpoints/checkpoint_best.pt --to fairseq --out student.pt
    fairseq-seqkd export checkpoints/checkpoint_best.pt --to ctranslate2 --out student \\
        --quantization int8 --spm-model spm.model --shortlist DATA
    fairseq-seqkd export checkpoints/checkpoint_best.pt --to sparse --out student.safetensors
    fairseq-seqkd export student.safetensors --to fairseq --out student.pt
"""

import os
import shlex
from typing import Callable, NamedTuple

from omegaconf import OmegaConf

from fairseq_seqkd.cli.files import check_out
from fairseq_seqkd.export.check import check_folder, split_to_check
from fairseq_seqkd.export.ctranslate2 import QUANTIZATIONS, export_ctranslate2
from fairseq_seqkd.export.sparse import SUFFIX, read_sparse, write_sparse
from fairseq_seqkd.export.stock import Student
from fairseq_seqkd.models.ctranslate2 import size_of
from fairseq_seqkd.models.language_tokens import direction_of
from fairseq_seqkd.models.loading import task_with_own_dictionaries
from fairseq_seqkd.registry import flag
from fairseq_seqkd.shortlist.source import load_shortlist
from fairseq_seqkd.shortlist.vocabulary_map import DEFAULT_SIZE


class Format(NamedTuple):
    """A form in which a student can be exported.

    Attributes:
        suffix: ending of the file's name; empty for a folder
        export: called with the `Student` and the command's arguments
        size: called with the exported path; its size in bytes
        next_step: the next command to run, with ``{out}`` for the exported path
        options: the format's own arguments, such as ``quantization``
    """

    suffix: str
    export: Callable
    size: Callable
    next_step: str
    options: tuple = ()


def _export_ctranslate2(student, arguments):
    config = OmegaConf.create(student.config["task"])
    languages = direction_of(config)
    task, _ = task_with_own_dictionaries(
        config, arguments.student, arguments.data, flag="--data", languages=languages
    )
    split, reason = _split_to_check(student, arguments, task)

    def check(folder):
        if split is None:
            print(f"not checked: {reason}")
            return None
        agreement = check_folder(student, folder, arguments.quantization, split)
        print(f"checked on {split.folder} ({split.name}): {agreement}")
        return agreement

    export_ctranslate2(
        student,
        arguments.out,
        task,
        quantization=arguments.quantization,
        spm_model=arguments.spm_model,
        shortlist=_shortlist(arguments, task),
        check=check,
    )


def _shortlist(arguments, task):
    """The `Shortlist` that is asked for, or None."""
    if arguments.shortlist is None:
        return None
    shortlist = load_shortlist(arguments.shortlist, task, arguments.shortlist_size)
    print(shortlist)
    return shortlist


def _split_to_check(student, arguments, task):
    if arguments.no_check:
        return None, "--no-check"
    return split_to_check(arguments.check, student, arguments.data, task)


FORMATS = {
    "fairseq": Format(
        ".pt",
        lambda student, arguments: student.save(arguments.out),
        os.path.getsize,
        "Translate with it:\n"
        "  fairseq-generate DATA --path {out} --required-batch-size-multiple 1",
    ),
    "ctranslate2": Format(
        "",
        _export_ctranslate2,
        size_of,
        "Translate with it:\n  python {out}/translate.py < sentences",
        (
            *("quantization", "spm_model", "shortlist", "shortlist_size"),
            *("data", "check", "no_check"),
        ),
    ),
    "sparse": Format(
        SUFFIX,
        lambda student, arguments: write_sparse(student, arguments.out),
        os.path.getsize,
        "Turn it into a checkpoint again:\n"
        "  fairseq-seqkd export {out} --to fairseq --out student.pt",
    ),
}


def add_arguments(parser):
    parser.add_argument(
        "student", metavar="STUDENT", help="a checkpoint, or a sparse file (.safetensors)"
    )
    parser.add_argument("--to", choices=list(FORMATS), required=True)
    parser.add_argument(
        "--out",
        metavar="OUT",
        required=True,
        help="the file to write, or for ctranslate2 a new folder",
    )
    parser.add_argument(
        "--ema",
        action="store_true",
        help="export the moving average of the weights (of a training with --store-ema); "
        "pruned weights stay zero",
    )
    _add_ctranslate2_arguments(parser.add_argument_group("for ctranslate2"))


def _add_ctranslate2_arguments(group):
    group.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        help="type of the stored weights; default: as in the checkpoint",
    )
    group.add_argument(
        "--spm-model",
        metavar="FILE",
        help="sentencepiece model that cut the training text, exported as well",
    )
    group.add_argument(
        "--shortlist",
        metavar="DATA|STORE|vmap.txt",
        help="allow only target symbols that are likely for a symbol of the source, as counted "
        "from the training pairs of a data-bin or store, or as in a finished vocabulary map",
    )
    group.add_argument(
        "--shortlist-size",
        type=int,
        metavar="N",
        help="target symbols of each source symbol, besides the 100 most frequent ones, which "
        f"are always allowed; default: {DEFAULT_SIZE}",
    )
    group.add_argument(
        "--data",
        help="folder with the student's dictionaries (default: beside the checkpoint, else "
        "the data-bin it was trained on)",
    )
    check = group.add_mutually_exclusive_group()
    check.add_argument(
        "--check",
        metavar="DATA[:SPLIT]",
        help="data-bin whose sentences are translated with fairseq as well, to compare; "
        "default: the validation split of the data it was trained on, if that is there",
    )
    check.add_argument(
        "--no-check",
        action="store_true",
        default=None,
        help="export the model without comparing its translations",
    )


def run(arguments):
    export_format = FORMATS[arguments.to]
    check_options(arguments, export_format)
    is_sparse = arguments.student.endswith(SUFFIX)
    if is_sparse and arguments.ema:
        raise ValueError("--ema: a sparse file has one set of weights. Export the checkpoint.")
    if is_sparse:
        student = read_sparse(arguments.student)
    else:
        student = Student.from_checkpoint(arguments.student, arguments.ema)
    export_format.export(student, arguments)
    before, after = os.path.getsize(arguments.student), export_format.size(arguments.out)
    print(f"{arguments.out}: {after / 1e6:.2f} MB (from {before / 1e6:.2f} MB)")
    print(export_format.next_step.format(out=shlex.quote(arguments.out)))


def check_options(arguments, export_format):
    """Raise an error for options that do not fit the format, before any work is done."""
    suffixes = [entry.suffix for entry in FORMATS.values() if entry.suffix]
    suffix = next((suffix for suffix in suffixes if arguments.out.endswith(suffix)), "")
    if suffix != export_format.suffix:
        expected = (
            f"a name in {export_format.suffix}"
            if export_format.suffix
            else "the name of a new folder"
        )
        raise ValueError(f"--out is {arguments.out!r}, expected {expected}")
    check_out(arguments.out, "--out", arguments.student, is_folder=not export_format.suffix)
    for option in FORMATS["ctranslate2"].options:
        if getattr(arguments, option) is not None and option not in export_format.options:
            raise ValueError(
                f"{flag(option)} is for --to ctranslate2, found --to {arguments.to}"
            )
    if arguments.shortlist_size is not None:
        _check_shortlist_size(arguments)
    if arguments.spm_model and not os.path.isfile(arguments.spm_model):
        raise FileNotFoundError(f"--spm-model: there is no file {arguments.spm_model!r}")


def _check_shortlist_size(arguments):
    if arguments.shortlist is None:
        raise ValueError("--shortlist-size needs --shortlist, which says what is counted")
    if arguments.shortlist_size < 1:
        raise ValueError(f"--shortlist-size is {arguments.shortlist_size}, expected 1 or more")
