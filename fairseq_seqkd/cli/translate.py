"""Translate lines with a teacher for which a student drafts: speculative decoding.

The student drafts a few tokens, and the teacher keeps or replaces them in one run. The output
is the teacher's own: its greedy output, or with --sampling samples of its distribution. One
line comes out for each line that goes in, in their order; an empty line stays empty. Sentences
are translated one at a time. How much was accepted is logged at the end.

INPUT is a data-bin, a text file, or - for standard input. Text is cut into subwords as for
fairseq-interactive, or is cut already; output is joined in the same way.

Example:
    fairseq-seqkd translate test.de --draft student.pt --teacher-path teacher.pt \\
        --spm-model spm.model > test.translated.en
    fairseq-seqkd translate data-bin --draft student.pt --teacher-path teacher.pt \\
        --split valid --remove-bpe sentencepiece --sampling --temperature 0.8 > sample.en
"""

import os
import sys

from fairseq_seqkd.cli.stores import (
    add_split_arguments,
    add_teacher_arguments,
)
from fairseq_seqkd.cli.text import add_subword_arguments, subwords_of

DRAFT_TOKENS = 4  # Chen et al. 2023, section 5
_NEED_SAMPLING = ("temperature", "seed")


def add_arguments(parser):
    parser.add_argument("input", metavar="INPUT", help="a data-bin, a text file, or -")
    parser.add_argument(
        "--draft", metavar="S", required=True, help="checkpoint of the student that drafts"
    )
    add_teacher_arguments(parser)
    parser.add_argument("--draft-data", help="folder with the student's dictionaries")
    add_split_arguments(parser, split=None, help="of a data-bin; default: test")
    _add_decoding_arguments(parser)
    _add_text_arguments(parser)


def _add_decoding_arguments(parser):
    parser.add_argument(
        "--draft-tokens",
        type=int,
        metavar="K",
        default=DRAFT_TOKENS,
        help="tokens that the student drafts a round; default: %(default)s",
    )
    parser.add_argument(
        "--sampling", action="store_true", help="draw from the teacher's distribution"
    )
    parser.add_argument(
        "--temperature", type=float, help="divides the logits before a draw; default: 1"
    )
    parser.add_argument("--seed", type=int, help="seed of the samples; default: 1")
    parser.add_argument(
        "--max-len-a",
        type=float,
        default=0,
        help="at most a * source length + b target tokens; default: 0",
    )
    parser.add_argument("--max-len-b", type=int, default=200, help="default: 200")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")


def _add_text_arguments(parser):
    group = parser.add_argument_group("how text is cut, and translations are joined")
    add_subword_arguments(group)
    group.add_argument(
        "--spm-model", metavar="FILE", help="the sentencepiece model that cuts and joins text"
    )
    group.add_argument(
        "--remove-bpe", help="as in fairseq-generate, such as sentencepiece or '@@ '"
    )


def run(arguments):
    from fairseq_seqkd.io.progress import progress_bar
    from fairseq_seqkd.translate import LineTranslator, detokeniser_of

    rule, subwords = rule_of(arguments), subwords_of(arguments)
    sources = sources_of(arguments)
    translator = translator_of(arguments, sources.task, rule)
    task = translator.teacher.task
    detokenise = detokeniser_of(task, subwords, arguments.remove_bpe)
    translate = LineTranslator(translator, detokenise, sources.name)
    sentences = progress_bar(
        sources.sentences(task, subwords),
        total=len(sources) if sources.task else None,
        unit=" lines",
        disable=sys.stdout.isatty(),
    )
    for line in translate(sentences):
        print(line, flush=True)
    translate.report()


def rule_of(arguments):
    """The rule by which the teacher keeps tokens, of the flags.

    Raises:
        ValueError: a number is out of its range, or a flag needs --sampling
    """
    from fairseq_seqkd.decoding.speculative import GreedyRule, SamplingRule

    for name in ("draft_tokens", "max_len_b", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}, expected 1 or more")
    given = {name: getattr(arguments, name) for name in _NEED_SAMPLING}
    given = {name: value for name, value in given.items() if value is not None}
    if not arguments.sampling:
        if given:
            raise ValueError(
                f"--{next(iter(given))} needs --sampling: greedy decoding draws nothing"
            )
        return GreedyRule()
    temperature = given.get("temperature", 1.0)
    if not 0 < temperature < float("inf"):
        raise ValueError(
            f"--temperature is {temperature}, expected a number above 0. Leave out --sampling "
            "for greedy decoding."
        )
    return SamplingRule(**given)


def sources_of(arguments):
    """The sentences that INPUT names.

    Raises:
        FileNotFoundError, ValueError: there is no such input, or a flag does not go with it
    """
    from fairseq_seqkd.translate import SplitSources, TextSources

    languages = arguments.source_lang, arguments.target_lang
    if os.path.isdir(arguments.input):
        return SplitSources(arguments.input, arguments.split or "test", languages)
    if arguments.split is not None:
        raise ValueError(
            f"--split names a split of a data-bin, but INPUT is {arguments.input!r}, which is "
            "no folder: leave --split out, or name a data-bin"
        )
    return TextSources(arguments.input)


def translator_of(arguments, task, rule):
    """The `DraftedTeacher` of the flags.

    Args:
        task: of the data-bin; None for text
        rule: as `rule_of` returns it
    Raises:
        FileNotFoundError, ValueError: as for `load_teacher` and `DraftedTeacher`
    """
    import torch

    from fairseq_seqkd.chunked.workers import Worker
    from fairseq_seqkd.cli.stores import device_of
    from fairseq_seqkd.decoding.search import SearchOptions
    from fairseq_seqkd.models.loading import TEACHER
    from fairseq_seqkd.teacher import load_teacher
    from fairseq_seqkd.teacher.drafting import DRAFT, DraftedTeacher

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    search = SearchOptions(1, max_len_a=arguments.max_len_a, max_len_b=arguments.max_len_b)
    device = device_of(arguments.cpu, Worker())
    languages = arguments.source_lang, arguments.target_lang

    def load(path, data, role):
        how = {"student_task": task, "role": role, "languages": languages}
        model = load_teacher(path, data, device, **how)
        if task is not None:
            model.check_dictionaries(task)
        return model

    teacher = load(arguments.teacher_path, arguments.teacher_data, TEACHER)
    draft = load(arguments.draft, arguments.draft_data, DRAFT)
    return DraftedTeacher(teacher, draft, rule, arguments.draft_tokens, search)
