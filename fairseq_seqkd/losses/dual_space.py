"""Dual-space distillation: each model's features are compared in the space of the other one.

Shapes: s student positions, t teacher positions, widths d (student) and D (teacher). With one
vocabulary the positions are the same; with two, each model has its own.
Source: Zhang et al. 2024, DSKD (arXiv 2406.17328), and the authors' code.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fairseq_seqkd.losses.blockwise_sum import weighted_sum
from fairseq_seqkd.losses.divergences import kl
from fairseq_seqkd.losses.support import gather_lprobs


class Positions(NamedTuple):
    """A model's decoder at the target positions of one batch.

    Attributes:
        features: (rows, length, width), the inputs of its output layer
        head: (vocab, width) weights of that layer, without gradient
        contexts, targets: (rows, length, width) embeddings of the symbols before and at
            each position
        symbols: (rows, length) the targets
        mask: (rows, length) True where a target is
    """

    features: Tensor
    head: Tensor
    contexts: Tensor
    targets: Tensor
    symbols: Tensor
    mask: Tensor


def same_positions(student, teacher, to_student, to_teacher):
    """Both models' features in the other's space, where both have one vocabulary.

    Args:
        student, teacher: `Positions`, of the same targets
        to_student, to_teacher: functions from one width to the other
    Returns:
        (rows, length, d) the teacher's, and (rows, length, D) the student's
    """
    return to_student(teacher.features), to_teacher(student.features)


def attended(student, teacher, to_student, to_teacher, query):
    """The same where each model has a vocabulary of its own: by cross-model attention.

    A position is known by its context's last symbol and its target. Standard deviations are
    those of the batch, over target positions.

    Args:
        query: function from two student embeddings to two teacher embeddings
    Returns:
        (rows, s, d) the teacher's at the student's positions, (rows, t, D) the reverse
    """
    teacher_index = torch.cat([teacher.contexts, teacher.targets], -1)
    keys = teacher_index / deviation(teacher_index, teacher.mask)
    values = teacher.features / deviation(teacher.features, teacher.mask)
    values = values + teacher.targets / deviation(teacher.targets, teacher.mask)
    queries = query(torch.cat([student.contexts, student.targets], -1).detach())
    scores = queries.float() @ keys.float().transpose(1, 2)
    scores = scores / (2 * teacher.features.size(-1)) ** 0.5
    both = student.mask.unsqueeze(2) & teacher.mask.unsqueeze(1)
    scores = scores.masked_fill(~both, -1e5)
    of_teacher = scores.softmax(-1) @ to_student(values).float()
    of_student = scores.transpose(1, 2).softmax(-1) @ to_teacher(student.features).float()
    return of_teacher.to(student.features), of_student.to(student.features)


def deviation(values, mask):
    """The standard deviation of (rows, length, width) values at the positions of a mask."""
    return values[mask].float().std().to(values)


def dual_space_terms(student, teacher, logits, in_student, in_teacher, temperature, only_right):
    """The three terms of the loss, each summed over the positions of its space, in nats.

    KL(sg p_t2s || p) pulls the student to the teacher in the student's space, CE(p_t2s, target)
    trains the projector there, and KL(q || p_s2t) compares in the teacher's space. No
    gradient reaches either head.

    Args:
        student, teacher: `Positions`
        logits: (rows, s, vocab) the student's
        in_student, in_teacher: the results of `same_positions` or `attended`
        temperature: of both KLs, without T^2; the CE is at T = 1
        only_right: the first KL counts only where argmax p_t2s is the target
    Returns:
        {"t2s_kl", "t2s_ce", "s2t_kl", "n_t2s_right"}
    """
    symbols, projected = student.symbols[student.mask], in_student[student.mask]
    of_teacher, learned = teacher.features[teacher.mask], in_teacher[teacher.mask]

    def in_space_of_student(chunk, some):
        t2s = head_logits(projected[some].detach(), student.head)
        is_right = t2s.argmax(-1) == symbols[some]
        value = kl_of_logits(t2s, chunk, temperature)
        return {"kl": value * is_right if only_right else value, "n_right": is_right}

    def of_projector(chunk, some):
        return {"nll": nll(head_logits(chunk, student.head), symbols[some])}

    def in_space_of_teacher(chunk, some):
        q = head_logits(of_teacher[some], teacher.head)
        return {"kl": kl_of_logits(q, head_logits(chunk, teacher.head), temperature)}

    t2s_kl, values = summed(in_space_of_student, "kl", logits[student.mask])
    t2s_ce, _ = summed(of_projector, "nll", projected, len(student.head))
    s2t_kl, _ = summed(in_space_of_teacher, "kl", learned, len(teacher.head))
    n_right = values["n_right"].sum()
    return {"t2s_kl": t2s_kl, "t2s_ce": t2s_ce, "s2t_kl": s2t_kl, "n_t2s_right": n_right}


def summed(values_of, name, tensor, width=None):
    """`weighted_sum` of one of the values, with weights of 1."""
    weights = {name: torch.ones(len(tensor), device=tensor.device)}
    return weighted_sum(values_of, weights, tensor, width)


def head_logits(features, head):
    """(n, vocab) float32 logits of (n, width) features."""
    return functional.linear(features.to(head), head).float()


def nll(logits, symbols):
    """(n,) the NLL of symbols in nats, of (n, vocab) float32 logits."""
    return -gather_lprobs(logits, symbols.unsqueeze(-1), 0).lprobs.squeeze(-1)


def kl_of_logits(first, second, temperature):
    """(n,) KL of the softmaxes of two (n, vocab) logits at a temperature."""
    return kl(*((one / temperature).log_softmax(-1) for one in (first, second)))
