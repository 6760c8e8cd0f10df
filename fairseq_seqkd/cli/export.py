"""Write a student in a form to be shipped.

fairseq: a checkpoint that stock fairseq loads without this package, without optimizer state.
ctranslate2: a folder that needs neither fairseq nor torch, and translates several times faster.
sparse: a file with the weights that are not zero, a fraction of a pruned checkpoint's size;
the same command makes an ordinary checkpoint of it again, equal bit for bit.

Example:
    fairseq-seqkd export checkpoints/checkpoint_best.pt --to fairseq --out student.pt
    fairseq-seqkd export checkpoints/checkpoint_best.pt --to ctranslate2 --out student \\
        --quantization int8 --spm-model spm.model
    fairseq-seqkd export checkpoints/checkpoint_best.pt --to sparse --out student.safetensors
    fairseq-seqkd export student.safetensors --to fairseq --out student.pt
"""

import os
import shlex
from typing import Callable, NamedTuple

from omegaconf import OmegaConf

from fairseq_seqkd.cli.files import check_out
from fairseq_seqkd.export import ctranslate2, sparse
from fairseq_seqkd.export.stock import Student
from fairseq_seqkd.models.loading import own_task


class Format(NamedTuple):
    """A form of a student.

    Attributes:
        suffix: how its file's name ends; nothing for a folder
        write: called with the `Student` and the command's arguments
        size: of what was written, in bytes
        then: what to do with it, with ``{out}`` for its name
        options: those of ``--quantization`` and so on that it has
    """

    suffix: str
    write: Callable
    size: Callable
    then: str
    options: tuple = ()


def _to_ctranslate2(student, arguments):
    config = OmegaConf.create(student.config["task"])
    task, _ = own_task(config, arguments.student, arguments.data, flag="--data")
    options = arguments.quantization, arguments.spm_model
    ctranslate2.write(student, arguments.out, task, *options)


FORMATS = {
    "fairseq": Format(
        ".pt",
        lambda student, arguments: student.save(arguments.out),
        os.path.getsize,
        "Translate with it:\n  fairseq-generate DATA --path {out}",
    ),
    "ctranslate2": Format(
        "",
        _to_ctranslate2,
        ctranslate2.size_of,
        "Translate with it:\n  python {out}/translate.py < sentences",
        ("quantization", "spm_model", "data"),
    ),
    "sparse": Format(
        sparse.SUFFIX,
        lambda student, arguments: sparse.write(student, arguments.out),
        os.path.getsize,
        "Make a checkpoint of it again:\n"
        "  fairseq-seqkd export {out} --to fairseq --out student.pt",
    ),
}


def add_arguments(parser):
    parser.add_argument(
        "student", metavar="STUDENT", help="a checkpoint, or a sparse file (.safetensors)"
    )
    parser.add_argument("--to", choices=list(FORMATS), required=True)
    parser.add_argument(
        "--out", metavar="OUT", required=True, help="the file, or for ctranslate2 a new folder"
    )
    parser.add_argument(
        "--ema",
        action="store_true",
        help="the moving average of the weights (of a training with --store-ema), with what "
        "was pruned at zero",
    )
    group = parser.add_argument_group("for ctranslate2")
    group.add_argument(
        "--quantization",
        choices=ctranslate2.QUANTIZATIONS,
        help="how the weights are kept; default: as they are",
    )
    group.add_argument(
        "--spm-model",
        metavar="FILE",
        help="the sentencepiece model that the text was cut with, to be shipped as well",
    )
    group.add_argument(
        "--data",
        help="folder with the student's dictionaries (default: beside it, else where its "
        "training data was)",
    )


def run(arguments):
    form = FORMATS[arguments.to]
    check_options(arguments, form)
    is_sparse = arguments.student.endswith(sparse.SUFFIX)
    if is_sparse and arguments.ema:
        raise ValueError("--ema: a sparse file has one set of weights. Export the checkpoint.")
    if is_sparse:
        student = sparse.read(arguments.student)
    else:
        student = Student.of_checkpoint(arguments.student, arguments.ema)
    form.write(student, arguments)
    before, after = os.path.getsize(arguments.student), form.size(arguments.out)
    print(f"{arguments.out}: {after / 1e6:.2f} MB (from {before / 1e6:.2f} MB)")
    print(form.then.format(out=shlex.quote(arguments.out)))


def check_options(arguments, form):
    """Refuse what does not go with the format, before anything is read."""
    suffixes = [one.suffix for one in FORMATS.values() if one.suffix]
    found = next((suffix for suffix in suffixes if arguments.out.endswith(suffix)), "")
    if found != form.suffix:
        expected = f"a name in {form.suffix}" if form.suffix else "the name of a new folder"
        raise ValueError(f"--out is {arguments.out!r}, expected {expected}")
    check_out(arguments.out, "--out", arguments.student, is_folder=not form.suffix)
    for one in FORMATS["ctranslate2"].options:
        if getattr(arguments, one) is not None and one not in form.options:
            flag = "--" + one.replace("_", "-")
            raise ValueError(f"{flag} is for --to ctranslate2, found --to {arguments.to}")
    if arguments.spm_model and not os.path.isfile(arguments.spm_model):
        raise FileNotFoundError(f"--spm-model: there is no file {arguments.spm_model!r}")
