"""Arguments that say how targets are selected and filtered, and the `TargetSpec` of them."""

import re

from fairseq_seqkd.pseudo.filters import FILTERS, PairScores, filter_flag
from fairseq_seqkd.pseudo.selectors import METRICS, SELECTORS, build_selector
from fairseq_seqkd.pseudo.target_spec import TargetSpec
from fairseq_seqkd.pseudo.unfinished import check_accepted


def add_target_spec_arguments(parser):
    """Add the flags of a `TargetSpec`, and --accept-unfinished."""
    _add_selector_arguments(parser)
    _add_text_arguments(parser)
    _add_filter_arguments(parser)
    parser.add_argument(
        "--accept-unfinished",
        type=float,
        metavar="FRACTION",
        help="end with exit status 3 if the teacher finished no hypothesis for more than this "
        "fraction of the sentences, such as 0.3; default: 0.2",
    )


def _add_selector_arguments(parser):
    group = parser.add_argument_group("selecting targets from the n-best lists")
    group.add_argument(
        "--select",
        choices=list(SELECTORS),
        default="best",
        help="the teacher's best hypothesis, the one closest to gold, the one most like all "
        "others of its list (minimum Bayes risk), that of the highest --scores, or whole "
        "lists for trainings with --kd-targets sampled; default: best",
    )
    group.add_argument(
        "--metric",
        choices=list(METRICS),
        help="similarity for --select closest (default: bleu) and mbr (default: chrf)",
    )
    group.add_argument(
        "--scores",
        metavar="FILE",
        help="--select scores: one number per hypothesis, the best the highest, in the order "
        "of merge --nbest-list",
    )
    group.add_argument(
        "--mbr-weights",
        action="store_true",
        help="--select mbr: the others count as much as the teacher's probability of each",
    )
    group.add_argument(
        "--keep",
        type=int,
        default=1,
        metavar="N",
        help="the N best hypotheses as N pairs, for stock fairseq; data-bin best-keepN, ...",
    )
    group.add_argument(
        "--databin",
        help="name of the data-bin in DIR; default: by the selector, such as closest-chrf",
    )


def _add_text_arguments(parser):
    group = parser.add_argument_group("text, for whatever compares or measures it")
    group.add_argument(
        "--remove-bpe",
        help="how to join subwords before texts are compared, as in fairseq-generate: "
        "sentencepiece or '@@ '",
    )
    group.add_argument(
        "--spm-model",
        metavar="FILE",
        help="the sentencepiece model that cut the text; it joins the subwords (import, and "
        "generate --text: and cuts the text)",
    )
    group.add_argument(
        "--moses", metavar="LANG", help="also undo Moses tokenisation of this language"
    )


def _add_filter_arguments(parser):
    group = parser.add_argument_group("filtering sentences; see --filter-action")
    for name, one in FILTERS.items():
        value = {"type": one.kind, "metavar": one.metavar}
        kind = value if one.metavar else {"action": "store_true"}
        group.add_argument(filter_flag(name), help=one.help, **kind)
    group.add_argument(
        "--filter-percentile",
        type=float,
        metavar="P",
        help="how many percent of the pairs --filter-scores rejects, such as 5",
    )
    group.add_argument(
        "--filter-action",
        choices=["gold", "drop"],
        help="what happens to sentences that a filter finds: they keep their gold target, or "
        "are dropped; default: gold, or drop if there are no gold targets",
    )


def target_spec_of(arguments, split):
    """Build the `TargetSpec` that the flags describe."""
    check_accepted(arguments.accept_unfinished)
    text = {
        "remove_bpe": arguments.remove_bpe,
        "moses_lang": arguments.moses,
        "spm_model": arguments.spm_model,
    }
    if arguments.select == "scores" and arguments.scores is None:
        raise ValueError(
            "--select scores needs --scores FILE: one number per hypothesis, in the order of "
            "the exported n-best list (fairseq-seqkd merge --nbest-list FILE)"
        )
    how = arguments.metric, arguments.mbr_weights, arguments.scores
    selector = build_selector(arguments.select, split.dataset.tgt_dict, *how, **text)
    filters = {name: getattr(arguments, f"filter_{name}") for name in FILTERS}
    if filters["scores"] is not None:
        filters["scores"] = PairScores(filters["scores"], arguments.filter_percentile)
    elif arguments.filter_percentile is not None:
        raise ValueError(
            "--filter-percentile needs --filter-scores FILE: one number per pair. (The "
            "teacher's own scores: --filter-score-percentile.)"
        )
    action = arguments.filter_action or ("gold" if split.has_gold else "drop")
    folder = arguments.databin
    if folder is not None and (not re.fullmatch(r"\w[\w.-]*", folder) or folder == "nbest"):
        raise ValueError(
            f"--databin is {folder!r}: expected the name of a folder in DIR, other than nbest"
        )
    return TargetSpec(selector, filters, action == "drop", folder, arguments.keep, text)
