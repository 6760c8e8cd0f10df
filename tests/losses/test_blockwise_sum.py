import pytest
import torch

from fairseq_seqkd.losses import blockwise_sum as chunks
from fairseq_seqkd.losses.blockwise_sum import TargetPositions, position_slices, weighted_sum


def values_of(logits, rows):
    lprobs = torch.log_softmax(logits, -1)
    return {"first": lprobs[:, 0], "squares": (lprobs**2).sum(-1), "largest": logits.argmax(-1)}


@pytest.fixture
def weights():
    return {"first": torch.rand(11), "squares": torch.rand(11)}


def test_all_positions_once():
    for positions, width in ((10, 2**19), (10, 2**22), (3, 1), (2**20, 2)):
        chunks = position_slices(positions, width, "cpu")
        assert [p for rows in chunks for p in range(positions)[rows]] == list(range(positions))


@pytest.mark.parametrize("rows", [1, 3, 11, 50])
def test_equals_autograd_on_the_whole(weights, monkeypatch, rows):
    monkeypatch.setitem(chunks._BLOCK_ELEMENTS, "cpu", 7 * rows)
    logits = torch.randn(11, 7, requires_grad=True)
    whole = values_of(logits, slice(None))
    expected = sum((weights[name] * whole[name]).sum() for name in weights)
    (gradient,) = torch.autograd.grad(3 * expected, logits)
    loss, values = weighted_sum(values_of, weights, logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, logits)[0], gradient)
    for name, value in whole.items():
        torch.testing.assert_close(values[name], value.detach())
        assert not values[name].requires_grad


def test_a_weight_of_nothing_leaves_out_infinite_values():
    logits = torch.tensor([[0.0, 1.0], [-torch.inf, 1.0]], requires_grad=True)
    weights = {"first": torch.tensor([1.0, 0.0])}
    loss, _ = weighted_sum(values_of, weights, logits)
    loss.backward()
    torch.testing.assert_close(loss, torch.log_softmax(logits[0], -1)[0])
    assert logits.grad[1].tolist() == [0, 0]


def test_without_weights_the_gradient_is_0():
    logits = torch.randn(4, 3, requires_grad=True)
    loss, values = weighted_sum(values_of, {}, logits)
    loss.backward()
    assert loss == 0 and not logits.grad.any() and len(values["first"]) == 4


def test_without_gradient(weights):
    loss, _ = weighted_sum(values_of, weights, torch.randn(11, 7))
    assert not loss.requires_grad


def test_small_gradients_survive_half_precision(weights):
    """Scaled up afterwards, as mixed precision does; 1e-8 is no number in half precision."""
    logits = torch.zeros(11, 7, dtype=torch.float16, requires_grad=True)
    tiny = {"first": torch.full((11,), 1e-8)}
    (2.0**15 * weighted_sum(values_of, tiny, logits)[0]).backward()
    assert logits.grad.dtype == torch.float16
    torch.testing.assert_close(
        logits.grad[:, 0].float(), torch.full((11,), 2.0**15 * 1e-8 * 6 / 7), rtol=1e-2, atol=0
    )


def test_a_second_gradient_is_refused(weights):
    logits = torch.randn(11, 7, requires_grad=True)
    loss, _ = weighted_sum(values_of, weights, logits)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="used up"):
        loss.backward()


def test_no_positions_have_a_sum_of_zero(weights):
    logits = torch.randn(0, 7, requires_grad=True)
    none = {name: weight[:0] for name, weight in weights.items()}
    loss, values = weighted_sum(values_of, none, logits)
    loss.backward()
    assert loss == 0 and logits.grad.shape == (0, 7)
    assert all(len(value) == 0 for value in values.values())


def test_target_positions():
    mask = torch.tensor([[True, True, False], [False, False, False], [True, False, True]])
    positions = TargetPositions(mask)
    symbols = torch.arange(9).view(3, 3)
    assert len(positions) == 4 and positions.rows.tolist() == [0, 0, 2, 2]
    assert positions.take(symbols).tolist() == [0, 1, 6, 8]
    assert positions.take(torch.stack([symbols, -symbols], -1))[-1].tolist() == [8, -8]
    spread = positions.spread(positions.take(symbols), 99)
    assert spread.tolist() == [[0, 1, 99], [99, 99, 99], [6, 99, 8]]
    assert positions.spread(torch.ones(4, dtype=torch.bool)).equal(mask)
