"""Set the weights of a checkpoint to zero, those of the smallest magnitude, once and for all.

Pruned like this a model loses quality, which it regains when it is trained on: with the hook in
training (fairseq-train --task translation_seqkd --prune-sparsity ...) weights stay at zero. Any
fairseq model can be pruned; neither its data nor its dictionary is needed.

Example:
    fairseq-seqkd prune student.pt pruned.pt --sparsity 0.8
    fairseq-seqkd prune student.pt smaller.pt --sparsity 0.5 --scheme ffn --compact
"""

import shlex

from fairseq_seqkd.cli.files import check_out
from fairseq_seqkd.models.parameters import fraction_of_zeros
from fairseq_seqkd.pruning.checkpoint import Checkpoint
from fairseq_seqkd.pruning.hook import check_sparsity
from fairseq_seqkd.pruning.report import table
from fairseq_seqkd.pruning.schemes import SCHEMES


def add_arguments(parser):
    parser.add_argument("checkpoint", metavar="IN.pt", help="that fairseq-train wrote")
    parser.add_argument("out", metavar="OUT.pt", help="the pruned one, without optimizer state")
    parser.add_argument(
        "--sparsity", type=float, help="share of the weights that is zero, from 0 to below 1"
    )
    parser.add_argument(
        "--scheme",
        choices=list(SCHEMES.options),
        default="class_blind",
        help="the smallest of all weights, of each class, in proportion to the class's "
        "standard deviation; whole heads, whole feed-forward units; default: %(default)s",
    )
    parser.add_argument(
        "--skip",
        metavar="REGEX",
        help="parameters in whose names it is found are left alone; biases, layer norms and "
        "positional tables always are",
    )
    parser.add_argument(
        "--again", action="store_true", help="also prune a model that was pruned before"
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="take feed-forward units that are zero out: a smaller model of the same output",
    )


def run(arguments):
    if arguments.sparsity is None and not arguments.compact:
        raise ValueError("nothing to do: expected --sparsity, or --compact, or both")
    if arguments.sparsity is not None:
        check_sparsity(arguments.sparsity, "--sparsity")
    check_out(arguments.out, "OUT.pt", arguments.checkpoint)
    checkpoint = Checkpoint(arguments.checkpoint, arguments.skip)
    if arguments.sparsity is not None:
        print(checkpoint.prune(arguments.scheme, arguments.sparsity, arguments.again))
    widths = checkpoint.compact() if arguments.compact else {}
    checkpoint.save(arguments.out)
    for side, (before, after) in widths.items():
        print(f"{side}: feed-forward width {before} -> {after}")
    print(table(checkpoint.parameters))
    print(next_command(arguments, widths, checkpoint))


def next_command(arguments, widths, checkpoint):
    """What to type when the file is there."""
    flags = [f"--{side}-ffn-embed-dim {after}" for side, (_, after) in widths.items()]
    left = fraction_of_zeros(checkpoint.weights.matrices)
    if arguments.compact and left > 0:  # what else is zero, of whatever scheme
        flags.append(f"--prune-sparsity {left:.6f}")
    elif not arguments.compact:
        flags.append(f"--prune-sparsity {arguments.sparsity}")
        if arguments.scheme != "class_blind":
            flags.append(f"--prune-scheme {arguments.scheme}")
    if arguments.skip and not arguments.compact:
        flags.append(f"--prune-skip {shlex.quote(arguments.skip)}")
    return (
        f"{arguments.out}\nTrain it on; what is zero stays so:\n"
        "  fairseq-train DATA --user-dir $(fairseq-seqkd user-dir) --task translation_seqkd "
        f"\\\n      --finetune-from-model {arguments.out} {' '.join(flags)} ..."
    )
