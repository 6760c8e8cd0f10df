"""Properties of the dual-space terms; for their values see ``criterions/test_dskd.py``."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from fairseq_seqkd.losses.dual_space import Positions, attended, dual_space_terms

SMALL = settings(max_examples=20, deadline=None)


def positions(seed, width, vocab, lengths, extra=0):
    """Random `Positions` of rows of some lengths, with more padding."""
    torch.manual_seed(seed)
    rows, longest = len(lengths), max(lengths)
    features, contexts, targets = torch.randn(3, rows, longest, width).unbind()
    head, symbols = torch.randn(vocab, width), torch.randint(vocab, (rows, longest))
    padding = torch.full((rows, extra, width), 7.0)
    features, contexts, targets = (
        torch.cat([one, padding], 1) for one in (features, contexts, targets)
    )
    symbols = torch.cat([symbols, symbols.new_zeros(rows, extra)], 1)
    mask = torch.arange(longest + extra).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)
    return Positions(features, head, contexts, targets, symbols, mask)


def by_attention(seed, lengths, extra=0, only_right=True):
    """The terms of two models of widths 3 and 4 by cross-model attention."""
    student = positions(seed, 3, 6, lengths, extra)
    teacher = positions(seed + 1, 4, 5, [length + 1 for length in lengths], 2 * extra)
    torch.manual_seed(seed)
    to_student, to_teacher = torch.nn.Linear(4, 3), torch.nn.Linear(3, 4)
    query = torch.nn.Linear(6, 8)
    projected = attended(student, teacher, to_student, to_teacher, query)
    logits = linear(student.features, student.head)
    return dual_space_terms(student, teacher, logits, *projected, 2.0, only_right)


LENGTHS = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@SMALL
@given(st.integers(0, 99), LENGTHS)
def test_padding_changes_nothing(seed, lengths):
    one, two = (by_attention(seed, lengths, extra) for extra in (0, 3))
    for name in one:
        torch.testing.assert_close(one[name], two[name])


@SMALL
@given(st.integers(0, 99), LENGTHS)
def test_divergences_are_not_negative_and_wrong_positions_only_lower_the_first(seed, lengths):
    some, all_ = (by_attention(seed, lengths, only_right=only) for only in (True, False))
    assert all(value >= -1e-5 for value in all_.values())
    assert -1e-5 <= some["t2s_kl"] <= all_["t2s_kl"] + 1e-5
    assert some["n_t2s_right"] <= sum(lengths)


@SMALL
@given(st.integers(0, 99), LENGTHS)
def test_the_same_model_on_both_sides_has_no_divergence(seed, lengths):
    same = positions(seed, 3, 6, lengths)
    logits = linear(same.features, same.head)
    terms = dual_space_terms(same, same, logits, same.features, same.features, 2.0, False)
    assert terms["t2s_kl"] == pytest.approx(0, abs=1e-5)
    assert terms["s2t_kl"] == pytest.approx(0, abs=1e-5)


def test_where_each_term_has_a_gradient():
    """The student learns from the first and third, the projectors from the last two."""
    student, teacher = positions(1, 3, 6, [4, 2]), positions(2, 4, 6, [4, 2])
    features, logits = (torch.randn(2, 4, n, requires_grad=True) for n in (3, 6))
    in_teacher = torch.randn(2, 4, 4, requires_grad=True)
    terms = dual_space_terms(student, teacher, logits, features, in_teacher, 2.0, False)
    leaves = {"student": logits, "t2s": features, "s2t": in_teacher}
    reached = {}
    for name in ("t2s_kl", "t2s_ce", "s2t_kl"):
        found = torch.autograd.grad(
            terms[name], list(leaves.values()), retain_graph=True, allow_unused=True
        )
        reached[name] = {leaf for leaf, grad in zip(leaves, found) if grad is not None}
    assert reached == {"t2s_kl": {"student"}, "t2s_ce": {"t2s"}, "s2t_kl": {"s2t"}}
