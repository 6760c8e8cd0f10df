"""Make a store from existing translations: of fairseq-generate, Marian, Moses, or plain text.

In the output of fairseq-generate it reads the H- lines, whose subwords are kept, or with
--spm-model the D- lines; n-best lists, any order of lines and several files are accepted. Lists
of Marian and Moses have lines NUMBER ||| hypothesis ||| features ||| score, counted from 0.
Plain text has one hypothesis per line, or --nbest lines per sentence, best first, in the order
of the split. Files may be compressed (gzip, bzip2, xz, zstd) or pipes; - is standard input.

Example:
    fairseq-seqkd import data-bin generate-train.txt --pseudo-targets pseudo
    fairseq-seqkd import data-bin translations.en --spm-model spm.model --pseudo-targets pseudo
    marian-decoder --n-best ... | fairseq-seqkd import data-bin - --pseudo-targets pseudo
"""

import contextlib

from fairseq_seqkd.cli.stores import (
    add_data_arguments,
    add_overwrite_argument,
    add_threads_argument,
    build_and_report,
    next_command,
    split_of,
)
from fairseq_seqkd.cli.targets import add_target_spec_arguments, target_spec_of
from fairseq_seqkd.pseudo.generate import open_store
from fairseq_seqkd.pseudo.importing import FORMATS, Translations, import_store
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.pseudo.store import PseudoTargetStore


def add_arguments(parser):
    add_data_arguments(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help="files to import")
    parser.add_argument(
        "--format",
        choices=["auto", *FORMATS],
        default="auto",
        help="auto recognises the output of fairseq-generate and n-best lists; default: auto",
    )
    parser.add_argument(
        "--nbest", type=int, default=1, help="lines per sentence of plain text; default: 1"
    )
    parser.add_argument(
        "--ignore-sources",
        action="store_true",
        help="do not compare the S- lines with the split, for output whose source text was "
        "post-processed in another way",
    )
    add_overwrite_argument(parser)
    add_threads_argument(parser)
    add_target_spec_arguments(parser)


def run(arguments):
    split = split_of(arguments)
    spec = target_spec_of(arguments, split)
    translations = Translations(
        arguments.files,
        arguments.nbest,
        arguments.spm_model,
        arguments.format,
        arguments.ignore_sources,
    )
    store = PseudoTargetStore(arguments.pseudo_targets)
    with store.replaced() if arguments.overwrite else contextlib.nullcontext():
        import_store(store.root, split, translations)
    store = open_store(store.root, split, spec, Recipe())
    build_and_report(store, split, spec, arguments)
    print(next_command(arguments, split, spec))
