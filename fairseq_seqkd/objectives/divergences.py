"""How the teacher's and the student's distributions at one position are compared.

A divergence takes two (positions, outcomes) float32 tensors of log-probabilities
and returns one value a position, in nats. -inf (an impossible outcome) is allowed
on both sides: where both have it, the outcome adds nothing, and no divergence or
gradient becomes NaN.
"""

import torch


def finite(lprobs):
    """-inf becomes the smallest float: 0 * log 0 is then 0, in the gradient too."""
    return lprobs.clamp(min=torch.finfo(lprobs.dtype).min)


def forward_kl(student_lprobs, teacher_lprobs):
    """KL(teacher || student), one value a position, in nats.

    Args:
        student_lprobs: (positions, outcomes) log-probabilities, float32
        teacher_lprobs: (positions, outcomes) log-probabilities, float32
    Returns:
        (positions,) non-negative; 0 where the two are equal
    Source: Kim & Rush 2016 (arXiv 1606.07947), L_WORD-KD in section 3.1, which is
        the cross-entropy: the KL differs from it by the teacher's entropy, a
        constant for the student, so the gradient is the same and the minimum is 0.
    """
    log_ratio = finite(teacher_lprobs) - finite(student_lprobs)
    return (teacher_lprobs.exp() * log_ratio).sum(-1)
