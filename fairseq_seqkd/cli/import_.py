"""Make a store of translations from elsewhere: fairseq-generate's output, or plain text.

Of fairseq-generate's output the H- lines are read, subwords as they are, or with --spm-model
the D- lines; n-best lists, any order of lines and any number of files are fine. Plain text has
one hypothesis a line, or --nbest lines a sentence, best first, in the order of the split.

Example:
    fairseq-seqkd import data-bin generate-train.txt --pseudo-targets pseudo
    fairseq-seqkd import data-bin translations.en --spm-model spm.model --pseudo-targets pseudo
"""

import contextlib

from fairseq_seqkd.cli.stores import (
    add_data_arguments,
    add_target_spec_arguments,
    add_threads_argument,
    finish,
    split_of,
    target_spec_of,
    threads_of,
)
from fairseq_seqkd.pseudo.generate import Recipe, open_store
from fairseq_seqkd.pseudo.importing import Import, import_store
from fairseq_seqkd.pseudo.store import PseudoTargetStore


def add_arguments(parser):
    add_data_arguments(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help="what to import")
    parser.add_argument(
        "--format",
        choices=["auto", "fairseq", "text"],
        default="auto",
        help="auto looks for the lines that fairseq-generate prints; default: auto",
    )
    parser.add_argument(
        "--nbest", type=int, default=1, help="lines a sentence in plain text; default: 1"
    )
    parser.add_argument(
        "--spm-model", help="cut the text into subwords with this sentencepiece model"
    )
    parser.add_argument(
        "--ignore-sources",
        action="store_true",
        help="do not compare S- lines with the split, where text was decoded in another way",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the store that is there, and start anew",
    )
    add_threads_argument(parser)
    add_target_spec_arguments(parser)


def run(arguments):
    split = split_of(arguments)
    spec = target_spec_of(arguments, split)
    source = Import(
        arguments.files,
        arguments.nbest,
        arguments.spm_model,
        arguments.format,
        arguments.ignore_sources,
    )
    store = PseudoTargetStore(arguments.pseudo_targets)
    with store.replaced() if arguments.overwrite else contextlib.nullcontext():
        import_store(store.root, split, source)
    store = open_store(store.root, split, spec, Recipe())
    finish(store, split, spec, threads_of(arguments))
