"""Write a student in a form to be shipped.

fairseq: a checkpoint that stock fairseq loads without this package, without optimizer state.
sparse: a file with the weights that are not zero, a fraction of a pruned checkpoint's size;
the same command makes an ordinary checkpoint of it again, equal bit for bit.

Example:
    fairseq-seqkd export checkpoints/checkpoint_best.pt --to sparse --out student.safetensors
    fairseq-seqkd export student.safetensors --to fairseq --out student.pt
"""

import os

from fairseq_seqkd.cli.files import check_out
from fairseq_seqkd.export import sparse
from fairseq_seqkd.export.stock import Student

FORMATS = {"fairseq": Student.save, "sparse": sparse.write}


def add_arguments(parser):
    parser.add_argument(
        "student", metavar="STUDENT", help="a checkpoint, or a sparse file (.safetensors)"
    )
    parser.add_argument("--to", choices=list(FORMATS), required=True)
    parser.add_argument("--out", metavar="FILE", required=True)
    parser.add_argument(
        "--ema",
        action="store_true",
        help="the moving average of the weights (of a training with --store-ema), with what "
        "was pruned at zero",
    )


def run(arguments):
    check_out(arguments.out, "--out", arguments.student)
    is_sparse, to_sparse = (
        name.endswith(sparse.SUFFIX) for name in (arguments.student, arguments.out)
    )
    if to_sparse != (arguments.to == "sparse"):
        expected = f"a name in {sparse.SUFFIX}" if arguments.to == "sparse" else "one in .pt"
        raise ValueError(f"--out is {arguments.out!r}, expected {expected}")
    if is_sparse and arguments.ema:
        raise ValueError("--ema: a sparse file has one set of weights. Export the checkpoint.")
    if is_sparse:
        student = sparse.read(arguments.student)
    else:
        student = Student.of_checkpoint(arguments.student, arguments.ema)
    FORMATS[arguments.to](student, arguments.out)
    before, after = (os.path.getsize(path) for path in (arguments.student, arguments.out))
    print(f"{arguments.out}: {after / 1e6:.2f} MB (from {before / 1e6:.2f} MB)")
    print(next_command(arguments))


def next_command(arguments):
    """What to type when the file is there."""
    if arguments.to == "fairseq":
        return f"Translate with it:\n  fairseq-generate DATA --path {arguments.out}"
    return (
        "Make a checkpoint of it again:\n"
        f"  fairseq-seqkd export {arguments.out} --to fairseq --out student.pt"
    )
