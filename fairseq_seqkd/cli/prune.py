"""Prune a checkpoint: set its weights of smallest magnitude to zero.

A pruned model loses quality, and regains it in further training. To keep the weights at zero,
train it with fairseq-train --task translation_seqkd --prune-sparsity ... Any fairseq model can
be pruned, without its data or dictionary.

Example:
    fairseq-seqkd prune student.pt pruned.pt --sparsity 0.8
    fairseq-seqkd prune student.pt smaller.pt --sparsity 0.5 --scheme ffn --compact
"""

import shlex

from fairseq_seqkd.cli.files import check_out
from fairseq_seqkd.models.parameters import fraction_of_zeros
from fairseq_seqkd.pruning.checkpoint import Checkpoint
from fairseq_seqkd.pruning.hook import check_sparsity
from fairseq_seqkd.pruning.report import sparsity_table
from fairseq_seqkd.pruning.schemes import SCHEME_HELP, SCHEMES


def add_arguments(parser):
    parser.add_argument(
        "checkpoint", metavar="IN.pt", help="checkpoint that fairseq-train wrote"
    )
    parser.add_argument(
        "out", metavar="OUT.pt", help="pruned checkpoint, without optimizer state"
    )
    parser.add_argument(
        "--sparsity", type=float, help="fraction of weights to be zero, from 0 to below 1"
    )
    parser.add_argument(
        "--scheme",
        choices=list(SCHEMES.options),
        default="class_blind",
        help=f"{SCHEME_HELP}; default: %(default)s",
    )
    parser.add_argument(
        "--skip",
        metavar="REGEX",
        help="do not prune parameters whose names match anywhere; biases, layer norms and "
        "positional embeddings are never pruned",
    )
    parser.add_argument(
        "--again", action="store_true", help="accept a model that was pruned before"
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="remove feed-forward units that are zero: a smaller model with the same output",
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
    print(sparsity_table(checkpoint.parameters))
    print(next_command(arguments, widths, checkpoint))


def next_command(arguments, widths, checkpoint):
    """The text that says how to train a pruned checkpoint further."""
    flags = [f"--{side}-ffn-embed-dim {after}" for side, (_, after) in widths.items()]
    sparsity = fraction_of_zeros(checkpoint.weights.matrices)
    if arguments.compact and sparsity > 0:  # zeros of another scheme
        flags.append(f"--prune-sparsity {sparsity:.6f}")
    elif not arguments.compact:
        flags.append(f"--prune-sparsity {arguments.sparsity}")
        if arguments.scheme != "class_blind":
            flags.append(f"--prune-scheme {arguments.scheme}")
    if arguments.skip and not arguments.compact:
        flags.append(f"--prune-skip {shlex.quote(arguments.skip)}")
    return (
        f"{arguments.out}\nTrain it further; zeros stay zero:\n"
        "  fairseq-train DATA --user-dir $(fairseq-seqkd user-dir) --task translation_seqkd "
        f"\\\n      --finetune-from-model {arguments.out} {' '.join(flags)} ..."
    )
