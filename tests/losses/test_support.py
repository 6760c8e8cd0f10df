import math

import pytest
import torch

from fairseq_seqkd.losses.divergences import kl
from fairseq_seqkd.losses.support import TopK, gather_lprobs, largest_logits, tempered, top_k


def test_temperature_divides_logits():
    logits = torch.tensor([[2.0, 0.0, -4.0]])
    result = tempered(torch.log_softmax(logits, -1), 2)
    torch.testing.assert_close(result, torch.log_softmax(logits / 2, -1))


def test_temperature_one_changes_nothing():
    lprobs = torch.log_softmax(torch.randn(2, 5), -1)
    torch.testing.assert_close(tempered(lprobs, 1), lprobs)


def tempered_gradient(student, teacher, temperature):
    """The gradient of T^2 KL(q_T || p_T) with respect to the student's logits."""
    student = student.clone().requires_grad_()
    p_T = tempered(torch.log_softmax(student, -1), temperature)
    q_T = tempered(torch.log_softmax(teacher, -1), temperature)
    (temperature**2 * kl(q_T, p_T)).sum().backward()
    return student.grad


@pytest.mark.parametrize("temperature", [0.5, 1, 2, 10])
def test_gradient_is_T_times_the_difference(temperature):
    torch.manual_seed(1)
    student, teacher = torch.randn(2, 4, 7, dtype=torch.float64)
    p_T = torch.softmax(student / temperature, -1)
    q_T = torch.softmax(teacher / temperature, -1)
    expected = temperature * (p_T - q_T)
    torch.testing.assert_close(tempered_gradient(student, teacher, temperature), expected)


def test_gradient_has_a_finite_limit_as_T_grows():
    torch.manual_seed(1)
    student, teacher = torch.randn(2, 4, 7, dtype=torch.float64)
    # T (p_T - q_T) tends to the difference of the centred logits, over V.
    centred = [x - x.mean(-1, keepdim=True) for x in (student, teacher)]
    limit = (centred[0] - centred[1]) / 7
    gradient = tempered_gradient(student, teacher, 1e5)
    torch.testing.assert_close(gradient, limit, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 8, 60])
@pytest.mark.parametrize("vocab", [70, 1000, 4100])
def test_largest_logits_are_those_of_topk(vocab, k):
    torch.manual_seed(1)
    logits = torch.randn(20, vocab)
    assert torch.equal(largest_logits(logits, k), logits.topk(k).indices)


def test_largest_logits_stand_side_by_side_or_at_the_end():
    logits = torch.zeros(2, 1003)
    logits[0, 64:74] = torch.arange(10, 20.0)
    logits[1, 998:] = torch.arange(1, 6.0)
    assert largest_logits(logits, 3).tolist() == [[73, 72, 71], [1002, 1001, 1000]]


def test_gathered_lprobs_are_those_of_log_softmax():
    torch.manual_seed(1)
    logits = 5 * torch.randn(6, 30, dtype=torch.float64)
    top = top_k(logits, 4)
    lprobs, probs = torch.log_softmax(logits, -1), torch.softmax(logits, -1)
    torch.testing.assert_close(top.lprobs, lprobs.topk(4).values)
    torch.testing.assert_close(top.tail_lprobs.exp(), 1 - probs.topk(4).values.sum(-1))
    gathered = gather_lprobs(logits, torch.tensor([[3]] * 6), 0)
    torch.testing.assert_close(gathered.summed_lprobs, lprobs.sum(-1))
    torch.testing.assert_close(gathered.tail_lprobs, torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(gathered.largest_lprobs, lprobs.amax(-1))


def test_a_small_tail_is_not_lost():
    logits = torch.tensor([[0.0, -40, -40, -40]])
    assert top_k(logits, 1).tail_lprobs.item() == pytest.approx(math.log(3) - 40, rel=1e-6)


@pytest.mark.parametrize("k", [0, 3, 6])
def test_gathering_passes_gradcheck(k):
    torch.manual_seed(1)
    logits = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    symbols = torch.stack([torch.randperm(7)[:6] for _ in range(4)])
    symbols = torch.cat([symbols, symbols[:, 2:3]], -1)  # a target among the first

    def outputs(logits):
        gathered = gather_lprobs(logits, symbols, k)
        return gathered.lprobs, gathered.tail_lprobs, gathered.summed_lprobs

    assert torch.autograd.gradcheck(outputs, logits)


def test_the_first_of_the_top_k_leave_the_others_to_the_tail():
    torch.manual_seed(1)
    logits = torch.randn(5, 40)
    for few, wanted in zip(top_k(logits, 9).first(3), top_k(logits, 3)):
        torch.testing.assert_close(few, wanted)
    assert isinstance(top_k(logits, 3).first(3), TopK)
