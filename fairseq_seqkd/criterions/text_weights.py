"""The weights of a batch's loss terms: of NLLs, of tokens and of sentences."""

from typing import NamedTuple, Optional

from torch import Tensor

from fairseq_seqkd.losses.statistics import PositionStatistics
from fairseq_seqkd.losses.support import NoTeacher


class LossWeights(NamedTuple):
    """The weights in the loss of one forward pass, but for the divergence's own.

    Attributes:
        target: of the NLL of the batch's target
        gold: of the same NLL once more, where the target is gold
        nll: (positions,) v, which multiplies ``target``; None for 1 at data targets
        rows: (batch,) s, which multiplies all terms; None for 1
    """

    target: float = 0.0
    gold: float = 0.0
    nll: Optional[Tensor] = None
    rows: Optional[Tensor] = None


def with_text_weights(weights, criterion, logits, target, positions, gold):
    """`LossWeights` with v and s of the batch; unchanged in validation.

    Args:
        weights: `LossWeights`
        criterion: `DistillCriterion`
        logits: (positions, vocab) the student's
        target: (positions,) symbols
        positions: `TargetPositions`
        gold: {"target", ...} of the same sentences; None where ``target`` is gold. A row that
            is padding alone has no gold, and its tokens no NLL weight
    """
    if not criterion.training:
        return weights
    method, pad = criterion.method, criterion.padding_idx
    symbols, everywhere = None if gold is None else gold["target"], target.ne(pad)
    texts = logits, target, everywhere, positions
    statistics = PositionStatistics(NoTeacher(), *texts, gold=symbols)
    if method.nll_weighting is not None:
        v = method.nll_weighting(statistics)
        if gold is not None:
            v = v * symbols.ne(pad).any(-1)[positions.rows]
        weights = weights._replace(nll=v)
    if method.sentence_weighting is not None:
        weights = weights._replace(rows=method.sentence_weighting(statistics))
    return weights
