"""Build a data-bin from the n-best lists of a store: after a run in parts, or to select anew.

Nothing is translated. --lenpen ranks the stored hypotheses anew.

Example:
    fairseq-seqkd merge data-bin --pseudo-targets pseudo
    fairseq-seqkd merge data-bin --pseudo-targets pseudo --select closest --metric chrf \\
        --remove-bpe sentencepiece
    fairseq-seqkd merge data-bin --pseudo-targets pseudo --lenpen 1.4
    fairseq-seqkd merge data-bin --pseudo-targets pseudo --nbest-list lists.txt
    fairseq-seqkd merge data-bin --pseudo-targets pseudo --select scores --scores scores.txt
"""

from fairseq_seqkd.cli.files import check_out
from fairseq_seqkd.cli.stores import (
    add_data_arguments,
    add_threads_argument,
    build_and_report,
    next_command,
    stores_of,
)
from fairseq_seqkd.cli.targets import add_target_spec_arguments
from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.pseudo.generate import open_store, translate_remaining
from fairseq_seqkd.pseudo.nbest_export import write_nbest_list
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.pseudo.target_spec import at_length_penalty


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
    parser.add_argument(
        "--nbest-list",
        metavar="FILE",
        help="also write all hypotheses as text, NUMBER ||| hypothesis ||| F0= score ||| "
        "score, numbered from 0 in the order of the split; --remove-bpe or --spm-model joins "
        "subwords",
    )


def run(arguments):
    if arguments.nbest_list is not None:
        check_out(arguments.nbest_list, "--nbest-list", arguments.data)
    for root, split, spec in stores_of(arguments):
        store = open_store(root, split, spec, Recipe())
        if arguments.lenpen is not None:
            lenpen, folder = arguments.lenpen, arguments.databin
            spec = at_length_penalty(spec, lenpen, store, split, folder)
        translate_remaining(store, split, Recipe())  # raises an error if chunks are missing
        if arguments.nbest_list is not None:
            detokenise = Detokeniser(split.dataset.tgt_dict, **spec.text)
            number = write_nbest_list(arguments.nbest_list, store, split, detokenise)
            print(f"{arguments.nbest_list}: {number} hypotheses")
        build_and_report(store, split, spec, arguments)
    print(next_command(arguments, split, spec))
