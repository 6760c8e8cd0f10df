import pytest
import torch

from fairseq_seqkd.distribution import tempered
from fairseq_seqkd.objectives.divergences import forward_kl


def test_temperature_divides_logits():
    logits = torch.tensor([[2.0, 0.0, -4.0]])
    result = tempered(torch.log_softmax(logits, -1), 2)
    torch.testing.assert_close(result, torch.log_softmax(logits / 2, -1))


def test_temperature_one_changes_nothing():
    lprobs = torch.log_softmax(torch.randn(2, 5), -1)
    assert tempered(lprobs, 1) is lprobs


def tempered_gradient(student, teacher, temperature):
    """The gradient of T^2 KL(q_T || p_T) with respect to the student's logits."""
    student = student.clone().requires_grad_()
    p_T = tempered(torch.log_softmax(student, -1), temperature)
    q_T = tempered(torch.log_softmax(teacher, -1), temperature)
    (temperature**2 * forward_kl(p_T, q_T)).sum().backward()
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
