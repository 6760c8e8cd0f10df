"""The flags of ``generate`` that name text to translate, and how it is cut into subwords."""

from fairseq_seqkd.pseudo.source_text import MOST_UNKNOWN, SourceText
from fairseq_seqkd.pseudo.subwords import MODEL_OF, TOKENIZERS, Subwords


def add_text_arguments(parser):
    """Add --text, and the flags that go with it."""
    group = parser.add_argument_group("plain text to translate, in place of the split of DATA")
    group.add_argument(
        "--text",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="files or pipes, compressed or not; - is standard input. A line that was there "
        "before, and an empty one, is left out. To go on, --text may be left out",
    )
    group.add_argument(
        "--exclude",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="text whose lines are left out: the validation and test sets",
    )
    group.add_argument(
        "--accept-unknown",
        type=float,
        metavar="FRACTION",
        help="end with an error if more than this fraction of the subwords is unknown; "
        f"default: {MOST_UNKNOWN}",
    )
    add_subword_arguments(group)


def add_subword_arguments(group):
    """Add the flags that say how text is cut, but --spm-model."""
    group.add_argument(
        "--tokenizer", choices=TOKENIZERS, help="as in fairseq-interactive; default: none"
    )
    group.add_argument(
        "--bpe",
        choices=list(MODEL_OF),
        help="subwords as in fairseq-interactive; default: none, the text is cut already. "
        "--spm-model FILE is short for --bpe sentencepiece --sentencepiece-model FILE",
    )
    group.add_argument(
        "--sentencepiece-model", metavar="FILE", help="the model of --bpe sentencepiece"
    )
    group.add_argument(
        "--bpe-codes", metavar="FILE", help="the codes of --bpe subword_nmt or fastbpe"
    )


_SUBWORDS = ("accept_unknown", "tokenizer", "bpe", "sentencepiece_model", "bpe_codes")


def text_of(arguments):
    """Build the `SourceText` that the flags describe; None without --text.

    Raises:
        ValueError: a flag that needs another one, or two that contradict each other
    """
    needing = ["exclude"] if arguments.teacher_ct2 else ["exclude", *_SUBWORDS]
    given = [name for name in needing if getattr(arguments, name) is not None]
    if arguments.text is None:
        if given:
            raise ValueError(f"{_flag(given[0])} needs --text FILE: it says what becomes of it")
        return None
    excluded = arguments.exclude or []
    limit = accept_unknown_of(arguments)
    return SourceText(arguments.text, excluded, subwords_of(arguments), limit)


def accept_unknown_of(arguments):
    """The value of --accept-unknown, or its default.

    Raises:
        ValueError: it is out of range
    """
    limit = arguments.accept_unknown
    if limit is not None and not 0 <= limit <= 1:
        raise ValueError(f"--accept-unknown is {limit}, expected a number from 0 to 1")
    return MOST_UNKNOWN if limit is None else limit


def subwords_of(arguments):
    """Build the `Subwords` that the flags describe; errors as for `text_of`."""
    models = ("spm_model", "sentencepiece_model", "bpe_codes")
    given = [name for name in models if getattr(arguments, name) is not None]
    bpe = arguments.bpe
    if bpe is None and given == ["spm_model"]:
        bpe = "sentencepiece"
    fitting = ("spm_model", MODEL_OF[bpe]) if bpe == "sentencepiece" else (MODEL_OF.get(bpe),)
    paths = {getattr(arguments, name) for name in given if name in fitting}
    for name in given:
        if name not in fitting or len(paths) > 1:
            raise ValueError(
                f"{_flag(name)} with --bpe {bpe}, and {', '.join(map(_flag, given))}: expected "
                "--bpe sentencepiece with --sentencepiece-model, --bpe subword_nmt with "
                "--bpe-codes, or --spm-model alone"
            )
    if bpe and not paths:
        raise ValueError(f"--bpe {bpe} needs its model: {_flag(MODEL_OF[bpe])} FILE")
    flag = _flag(given[0]) if given else "--spm-model"
    return Subwords(bpe, *(paths or {None}), tokenizer=arguments.tokenizer, flag=flag)


def _flag(name):
    return f"--{name.replace('_', '-')}"
