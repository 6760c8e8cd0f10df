"""A divergence that also keeps the order of the most probable symbols."""

import torch

from fairseq_seqkd.losses.divergences import DIVERGENCES, forward_kl, largest_symbols
from fairseq_seqkd.registry import Parameter

RANKED = Parameter(
    "kd_ranked",
    5,
    "how many of the most probable symbols of each model are ranked",
    "a whole number from 1 upwards",
    lambda x: x >= 1,
)


@DIVERGENCES.option(ranked=RANKED)
def ranked_kl(support, statistics=None, *, ranked=5):
    """Forward KL and a ranking loss: no symbol may overtake one that the teacher prefers.

    Arguments and result as in `forward_kl`; ranked: as in `ranking_loss`
    Source: Zhang et al. 2023, TIE-KD (arXiv 2305.08096).
    """
    return forward_kl(support) + ranking_loss(support, ranked)


def ranking_loss(support, ranked):
    """sum_j max(0, p(a_j) - p(a_1)) + sum_ij [q(a_i) > q(b_j)] max(0, p(b_j) - p(a_i)).

    a and b are the most probable symbols of the teacher and of the student, a_1 the first. On
    the teacher's top k, b is among those. A symbol that is impossible for the teacher is no a.

    Args:
        support: `Support`
        ranked: the number of symbols in a and in b
    Returns:
        (positions,) non-negative, 0 where the order is the teacher's
    """
    p, q = support.student_lprobs.exp(), support.teacher_probs
    a = largest_symbols(support, support.teacher_lprobs, ranked)
    b = largest_symbols(support, support.student_lprobs, ranked)
    p_a, p_b, q_a, q_b = p.gather(-1, a), p.gather(-1, b), q.gather(-1, a), q.gather(-1, b)
    beside_first = torch.relu(p_a - p_a[:, :1]) * (q_a > 0)
    is_preferred = q_a.unsqueeze(-1) > q_b.unsqueeze(-2)  # (positions, a, b)
    overtaking = torch.relu(p_b.unsqueeze(-2) - p_a.unsqueeze(-1)) * is_preferred
    return beside_first.sum(-1) + overtaking.sum((-1, -2))
