"""The example of docs/design.md is code that keeps its own rules."""

import math
import re

import torch
from conftest import ROOT

from fairseq_seqkd.losses.support import Support
from fairseq_seqkd.registry import Axis, Parameter


def example():
    """The divergence of the page, resolved from an axis of its own."""
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(@DIVERGENCES.*?)```", page, re.DOTALL)
    axis = Axis("kd_divergence")
    power = Parameter("kd_power", 0.5, "the power", "above 0", lambda x: x > 0)
    exec(code, {"DIVERGENCES": axis, "POWER": power, "torch": torch})
    return axis.resolve("hellinger", {})


def test_it_is_zero_for_equal_distributions_and_takes_impossible_outcomes():
    lprobs = torch.log_softmax(torch.tensor([[0.0, 1, 2, -math.inf]]), -1)
    student = lprobs.flip(-1).clone().requires_grad_()
    assert example()(Support(lprobs, lprobs)).item() == 0
    value = example()(Support(student, lprobs))
    value.sum().backward()
    assert value.item() > 0 and not student.grad.isnan().any()


def test_its_value():
    p, q = torch.tensor([[0.25, 0.75]]), torch.tensor([[0.5, 0.5]])
    expected = 0.5 * (p.sqrt() - q.sqrt()).square().sum()
    torch.testing.assert_close(example()(Support(p.log(), q.log())), expected.unsqueeze(0))
