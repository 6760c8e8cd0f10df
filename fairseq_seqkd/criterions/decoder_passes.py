"""Further passes of the student's decoder over an encoder output that is there already.

Only the decoder runs again, outside the data-parallel wrapper: calling the wrapper twice would
leave gradients unsynchronised.
"""

import math

import torch

from fairseq_seqkd.criterions.text_weights import LossWeights
from fairseq_seqkd.losses.blockwise_sum import TargetPositions
from fairseq_seqkd.losses.support import NoTeacher
from fairseq_seqkd.models.adapters import output_layer_at


def gold_loss(criterion, student, encoder_out, gold, weights):
    """The NLL of gold targets, times ``--gold-weight``.

    Args:
        criterion: `DistillCriterion`
        student: the model without wrappers
        encoder_out: of the batch's sentences, which the encoder has already read
        gold: {"target", "prev_output_tokens"}
        weights: `LossWeights` of the batch
    """
    positions = TargetPositions(gold["target"].ne(criterion.padding_idx))
    with output_layer_at(student, positions.index) as logits_of_output:
        net_output = student.decoder(gold["prev_output_tokens"], encoder_out=encoder_out)
    logits, target = logits_of_output(net_output), positions.take(gold["target"])
    weights = LossWeights(gold=criterion.gold_weight, rows=weights.rows)
    of_pass = logits, target, positions, nowhere(gold["target"]), NoTeacher()
    return criterion.token_loss(*of_pass, weights)[0]


def argmax_loss(
    criterion, student, encoder_outputs, teacher, sample, logits, positions, weights
):
    """The divergences of all passes but the first, whose context the student makes at once.

    After each pass the context becomes [EOS, argmax p_1, ..., argmax p_(T-1)], with p_t the
    student's distribution of token t in that pass: a student's prefix without generation. Every
    pass is over the positions of the batch's target, and has no NLL.

    Args:
        criterion, student: as for `gold_loss`
        encoder_outputs: of the student's encoder, the last is taken
        teacher: `Teacher`, which reads the same contexts
        sample: the batch
        logits: (positions, vocab) of the first pass
        positions: `TargetPositions` of the batch
        weights: `LossWeights` of the batch
    Raises:
        ValueError: the student has no encoder, whose output could be read again
    Source: Zhang et al. 2023, TIE-KD (arXiv 2305.08096), and the authors' fairseq code.
    """
    if not encoder_outputs:
        raise ValueError(
            f"--kd-passes is {criterion.cfg.kd_passes}, but {type(student).__name__} has no "
            "encoder to read again: expected a model that reads a source, or --kd-passes 1"
        )
    inputs, loss, weights = sample["net_input"], 0.0, LossWeights(rows=weights.rows)
    target, pad = positions.take(sample["target"]), criterion.padding_idx
    for _ in range(criterion.n_passes - 1):
        context = argmax_context(inputs["prev_output_tokens"], logits, positions, pad)
        inputs = {**inputs, "prev_output_tokens": context}
        passed = {**sample, "net_input": inputs}
        comparator = criterion.build_comparator(teacher, passed, positions)
        with output_layer_at(student, positions.index) as logits_of_output:
            net_output = student.decoder(context, encoder_out=encoder_outputs[-1])
        logits = logits_of_output(net_output)
        of_pass = logits, target, positions, nowhere(sample["target"]), comparator
        loss = loss + criterion.token_loss(*of_pass, weights)[0]
    return loss


def argmax_context(context, logits, positions, pad):
    """The (batch, length) decoder's context of the most probable tokens, as in `argmax_loss`.

    Its first symbol (EOS, or a language) and its padding stay. Padding is no token.

    Args:
        context: (batch, length) that the logits were computed from
        logits: (positions, vocab)
        positions: `TargetPositions`
    """
    logits = logits.detach()
    best = logits.argmax(-1)
    is_pad = best == pad
    if is_pad.any():
        others = logits[is_pad].index_fill(-1, best.new_tensor([pad]), -math.inf)
        best[is_pad] = others.argmax(-1)
    best, begun = positions.spread(best, pad), context.ne(pad)
    stays = ~begun | (begun.cumsum(-1) == 1)
    return torch.where(stays, context, best.roll(1, dims=-1))


def nowhere(target):
    """(batch,) False: no row is the student's."""
    return torch.zeros_like(target[:, 0], dtype=torch.bool)
