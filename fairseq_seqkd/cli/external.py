"""The flags of ``generate`` for a teacher that is no fairseq model."""

from fairseq_seqkd.cli.text import accept_unknown_of, subwords_of
from fairseq_seqkd.decoding.external_model import MAX_POSITIONS, ExternalModel
from fairseq_seqkd.models.data_folders import single_folder
from fairseq_seqkd.pseudo.external import (
    ExternalRecipe,
    has_source_lines,
    prepare_source_lines,
)

_TOKENS = ("teacher_source_prefix", "teacher_source_suffix", "teacher_target_prefix")
_FLAGS = ("teacher_spm", "source_text", *_TOKENS, "teacher_max_positions")


def add_external_arguments(parser):
    """Add --teacher-ct2, and the flags that go with it."""
    group = parser.add_argument_group("a teacher that is no fairseq model, in its own subwords")
    group.add_argument(
        "--teacher-ct2",
        metavar="FOLDER",
        help="a model that CTranslate2's converters made (OPUS-MT, NLLB, M2M-100, Marian). It "
        "reads the --text or the --source-text; the student's subwords are given as for --text",
    )
    group.add_argument(
        "--teacher-spm",
        nargs="+",
        metavar="MODEL",
        help="its sentencepiece models: of the source, and of the target if that is another",
    )
    group.add_argument(
        "--source-text",
        metavar="FILE",
        help="the source text of the split of DATA, with a line for each of its sentences, "
        "before it was cut",
    )
    group.add_argument(
        "--teacher-source-prefix",
        metavar="TOKENS",
        help="tokens before every source, such as a language token",
    )
    group.add_argument(
        "--teacher-source-suffix",
        metavar="TOKENS",
        help="tokens after every source; models converted from transformers want '</s>'",
    )
    group.add_argument(
        "--teacher-target-prefix",
        metavar="TOKENS",
        help="tokens that every translation begins with, such as a language token",
    )
    group.add_argument(
        "--teacher-max-positions",
        type=int,
        metavar="N",
        help="the longest source and target that it takes, in its tokens; default: what "
        f"fairseq-seqkd export noted, else {MAX_POSITIONS}",
    )


def check_external_flags(arguments):
    """Refuse flags that need --teacher-ct2, and those that it cannot be combined with."""
    given = [name for name in _FLAGS if getattr(arguments, name) is not None]
    if not arguments.teacher_ct2:
        if given:
            raise ValueError(f"--{given[0].replace('_', '-')} needs --teacher-ct2 FOLDER")
        return
    if arguments.teacher_path:
        raise ValueError("--teacher-ct2 and --teacher-path: expected one teacher")
    if not arguments.teacher_spm or len(arguments.teacher_spm) > 2:
        raise ValueError(
            "--teacher-ct2 needs --teacher-spm SOURCE.model, or SOURCE.model TARGET.model: the "
            f"sentencepiece models that came with it (found {arguments.teacher_spm})"
        )
    if arguments.text and arguments.source_text:
        raise ValueError(
            "--text and --source-text: expected new text, or the text of the split of DATA"
        )
    limit = arguments.teacher_max_positions
    if limit is not None and limit < 2:
        raise ValueError(f"--teacher-max-positions is {limit}, expected 2 or more")
    single_folder(arguments.data, arguments.split)


def prepare_lines(arguments, root, split):
    """Store the text that --teacher-ct2 reads, if that is --source-text.

    Args:
        arguments: of the command
        root: the store's folder
        split: its `PairSplit`
    """
    if arguments.source_text:
        prepare_source_lines(root, arguments.source_text, split)
    elif arguments.teacher_ct2 and not has_source_lines(root):
        raise ValueError(
            "--teacher-ct2 needs text: --text FILE, or --source-text FILE with the source text "
            "of the split of DATA (a data-bin has lost unknown characters)"
        )


def external_of(arguments, how):
    """Build the `ExternalRecipe` that the flags describe.

    Args:
        arguments: of the command
        how: the settings of any `Recipe`
    """
    tokens = (tuple((getattr(arguments, name) or "").split()) for name in _TOKENS)
    prefix, suffix, target_prefix = tokens
    source_spm, target_spm = (*arguments.teacher_spm, None)[:2]
    engine = {**how["engine"], "max_positions": arguments.teacher_max_positions}
    return ExternalRecipe(
        **{**how, "engine": engine},
        model=ExternalModel(
            arguments.teacher_ct2, source_spm, target_spm, prefix, suffix, target_prefix
        ),
        subwords=subwords_of(arguments),
        accept_unknown=accept_unknown_of(arguments),
    )
