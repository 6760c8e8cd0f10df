"""Build a data-bin from the n-best lists of a store: after a run in parts, or to select anew.

Nothing is translated. --lenpen ranks the stored hypotheses anew.

Example:
    fairseq-seqkd merge data-bin --pseudo-targets pseudo
    fairseq-seqkd merge data-bin --pseudo-targets pseudo --select closest --metric chrf \\
        --remove-bpe sentencepiece
    fairseq-seqkd merge data-bin --pseudo-targets pseudo --lenpen 1.4
"""

import dataclasses
import math

from fairseq_seqkd.cli.stores import (
    add_data_arguments,
    add_target_spec_arguments,
    add_threads_argument,
    build_and_report,
    next_command,
    stores_of,
)
from fairseq_seqkd.pseudo.generate import Recipe, open_store, translate_remaining
from fairseq_seqkd.pseudo.selectors import BestAtLengthPenalty
from fairseq_seqkd.pseudo.target_spec import check_target_spec


def add_arguments(parser):
    add_data_arguments(parser)
    add_threads_argument(parser)
    add_target_spec_arguments(parser)
    parser.add_argument(
        "--lenpen",
        type=float,
        metavar="X",
        help="select the hypothesis that is best at this length penalty, not at the search's",
    )


def run(arguments):
    for root, split, spec in stores_of(arguments):
        store = open_store(root, split, spec, Recipe())
        if arguments.lenpen is not None:
            spec = ranked_anew(spec, store, split, arguments)
        translate_remaining(store, split, Recipe())  # raises an error if chunks are missing
        build_and_report(store, split, spec, arguments)
    print(next_command(arguments, split, spec))


def ranked_anew(spec, store, split, arguments):
    """The `TargetSpec` that selects by the length penalty of ``--lenpen``.

    Raises:
        ValueError: the penalty is no number, another selector was asked for, or the scores of
            the store are not known to be divided by lengths
    """
    if not math.isfinite(arguments.lenpen):
        raise ValueError(f"--lenpen is {arguments.lenpen}, expected a number such as 1.4")
    if arguments.select != "best":
        raise ValueError(
            f"--lenpen with --select {arguments.select}: it ranks by the teacher's scores, and "
            "the other compares texts. Leave one of them out."
        )
    manifest = store.manifest
    if "import" in manifest:
        raise ValueError(
            f"--lenpen: the store {store.root!r} was imported, and how its scores were divided "
            "by lengths is not known. Expected a store of fairseq-seqkd generate."
        )
    search = manifest["search"]
    selector = BestAtLengthPenalty(search["lenpen"], arguments.lenpen)
    spec = dataclasses.replace(spec, selector=selector, folder=arguments.databin)
    check_target_spec(spec, split, search["nbest"])
    return spec
