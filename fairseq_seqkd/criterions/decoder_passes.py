"""Further passes of the student's decoder over an encoder output that is there already.

Only the decoder runs again, outside the data-parallel wrapper: calling the wrapper twice would
leave gradients unsynchronised.
"""

import math

import torch

from fairseq_seqkd.criterions.text_weights import LossWeights
from fairseq_seqkd.losses.support import NoTeacher
from fairseq_seqkd.models.adapters import logits_of


def gold_loss(criterion, student, encoder_out, gold, weights):
    """The NLL of gold targets, times ``--gold-weight``.

    Args:
        criterion: `DistillCriterion`
        student: the model without wrappers
        encoder_out: of the batch's sentences, which the encoder has already read
        gold: {"target", "prev_output_tokens"}
        weights: `LossWeights` of the batch
    """
    net_output = student.decoder(gold["prev_output_tokens"], encoder_out=encoder_out)
    target, logits = student.get_targets(gold, net_output), logits_of(student, net_output)
    of_pass = logits, target, nowhere(target), NoTeacher()
    weights = LossWeights(gold=criterion.gold_weight, rows=weights.rows)
    return criterion.token_loss(*of_pass, weights)[0]


def argmax_loss(criterion, student, encoder_outputs, teacher, sample, logits, weights):
    """The divergences of all passes but the first, whose context the student makes at once.

    After each pass the context becomes [EOS, argmax p_1, ..., argmax p_(T-1)], with p_t the
    student's distribution of token t in that pass: a student's prefix without generation. Every
    pass is over the positions of the batch's target, and has no NLL.

    Args:
        criterion, student: as for `gold_loss`
        encoder_outputs: of the student's encoder, the last is taken
        teacher: `Teacher`, which reads the same contexts
        sample: the batch
        logits: (batch, length, vocab) of the first pass
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
    for _ in range(criterion.n_passes - 1):
        context = argmax_context(inputs["prev_output_tokens"], logits, criterion.padding_idx)
        inputs = {**inputs, "prev_output_tokens": context}
        comparator = criterion.build_comparator(teacher, {**sample, "net_input": inputs})
        net_output = student.decoder(context, encoder_out=encoder_outputs[-1])
        target, logits = sample["target"], logits_of(student, net_output)
        of_pass = logits, target, nowhere(target), comparator
        loss = loss + criterion.token_loss(*of_pass, weights)[0]
    return loss


def argmax_context(context, logits, pad):
    """The (batch, length) decoder's context of the most probable tokens, as in `argmax_loss`.

    Its first symbol (EOS, or a language) and its padding stay. Padding is no token.

    Args:
        context: (batch, length) that the logits were computed from
        logits: (batch, length, vocab)
    """
    logits = logits.detach()
    best = logits.argmax(-1)
    is_pad = best == pad
    if is_pad.any():
        others = logits[is_pad].index_fill(-1, best.new_tensor([pad]), -math.inf)
        best[is_pad] = others.argmax(-1)
    begun = context.ne(pad)
    stays = ~begun | (begun.cumsum(-1) == 1)
    return torch.where(stays, context, best.roll(1, dims=-1))


def nowhere(target):
    """(batch,) False: no row is the student's."""
    return torch.zeros_like(target[:, 0], dtype=torch.bool)
