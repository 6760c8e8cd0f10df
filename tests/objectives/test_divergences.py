import math

import numpy as np
import pytest
import torch

from fairseq_seqkd.objectives.divergences import forward_kl

INF = math.inf


def lprobs(logits):
    return torch.log_softmax(torch.as_tensor(logits), dim=-1)


def numpy_kl(student_logits, teacher_logits):
    """KL(teacher || student) in float64, by the definition."""

    def probabilities(logits):
        exponentials = np.exp(logits - logits.max(-1, keepdims=True))
        return exponentials / exponentials.sum(-1, keepdims=True)

    p = probabilities(student_logits.astype(np.float64))
    q = probabilities(teacher_logits.astype(np.float64))
    return np.where(q > 0, q * (np.log(np.where(q > 0, q, 1)) - np.log(p)), 0).sum(-1)


def test_hand_worked():
    # q = (1/2, 1/2), p = (1/4, 3/4): 1/2 log 2 + 1/2 log 2/3 = 1/2 log 4/3
    student = torch.tensor([[0.25, 0.75]]).log()
    teacher = torch.tensor([[0.5, 0.5]]).log()
    assert forward_kl(student, teacher).item() == pytest.approx(math.log(4 / 3) / 2)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_equals_float64_computation(scale):
    rng = np.random.default_rng(1)
    student, teacher = scale * rng.standard_normal((2, 50, 11)).astype(np.float32)
    result = forward_kl(lprobs(student), lprobs(teacher))
    np.testing.assert_allclose(result, numpy_kl(student, teacher), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("logits", [[0.0, 1.0, 2.0], [1e4, 0.0, -1e4], [-INF, 0.0, 1.0]])
def test_zero_for_equal_distributions(logits):
    same = lprobs([logits])
    assert forward_kl(same, same).tolist() == [0.0]


@pytest.mark.parametrize(
    "student, teacher",
    [
        ([1e4, 0.0, -1e4], [0.0, 1e4, 0.0]),
        ([-INF, 0.0, 1.0], [-INF, 2.0, 1.0]),
        ([0.0, 0.0, 1.0], [-INF, 2.0, -INF]),
        ([-INF, 0.0, 1.0], [0.0, 0.0, 0.0]),
    ],
)
def test_extreme_logits_give_no_nan(student, teacher):
    student = torch.tensor([student], requires_grad=True)
    loss = forward_kl(lprobs(student), lprobs([teacher])).sum()
    loss.backward()
    assert not loss.isnan()
    assert not student.grad.isnan().any()


def test_gradient_passes_gradcheck():
    torch.manual_seed(1)
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    teacher = lprobs(torch.randn(3, 5, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: forward_kl(lprobs(x), teacher), logits)
