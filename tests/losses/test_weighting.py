import math
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairseq_seqkd.losses.weighting import WEIGHTINGS

NOT_UNIFORM = [name for name in WEIGHTINGS.options if name != "uniform"]

STATISTICS = ("student_nll", "student_entropy", "reverse_kl", "relative_position")


@st.composite
def statistics(draw, min_counted=1):
    """Statistics of some positions, some of which do not count."""
    size = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counted_mask = torch.from_numpy(rng.random(size) < 0.7)
    counted_mask[:min_counted] = True
    values = {name: torch.from_numpy(rng.random(size) * 3).float() for name in STATISTICS}
    return SimpleNamespace(counted_mask=counted_mask, memory={}, gather=gathered, **values)


def gathered(values):
    """Of one process."""
    return values


@pytest.mark.parametrize("name", NOT_UNIFORM)
@given(statistics=statistics(min_counted=0))
def test_non_negative_and_nothing_for_padding(name, statistics):
    weights = WEIGHTINGS.resolve(name, {})(statistics)
    assert weights.shape == statistics.counted_mask.shape
    assert (weights >= 0).all() and not weights.isnan().any()
    assert (weights[~statistics.counted_mask] == 0).all()


@pytest.mark.parametrize("name", NOT_UNIFORM)
@given(statistics=statistics())
def test_what_stands_in_padding_does_not_matter(name, statistics):
    weighting = WEIGHTINGS.resolve(name, {})
    before = weighting(statistics)
    for statistic in STATISTICS:
        getattr(statistics, statistic)[~statistics.counted_mask] = 1000.0
    statistics.memory.clear()
    assert torch.equal(weighting(statistics), before)


@given(statistics=statistics(), keep=st.floats(0.01, 1))
def test_scales(statistics, keep):
    n = int(statistics.counted_mask.sum())
    kept = math.ceil(keep * n)
    selective = WEIGHTINGS.resolve("selective", {"kd_keep": keep})(statistics)
    assert selective.sum() == kept and set(selective.tolist()) <= {0.0, 1.0}
    tip = WEIGHTINGS.resolve("entropy_divergence", {"kd_keep": keep})(statistics)
    assert tip.sum().item() == pytest.approx(n, rel=1e-5)
    assert (tip > 0).sum() == kept
    position = WEIGHTINGS.resolve("position", {})(statistics)[statistics.counted_mask]
    assert (position >= 0.25).all() and (position <= 1).all()


def test_uniform_weighs_nothing():
    assert WEIGHTINGS.resolve("uniform", {}) is None


def test_selective_keeps_the_highest_nll():
    counted_mask = torch.tensor([True, True, True, True, False])
    given = SimpleNamespace(
        counted_mask=counted_mask, student_nll=torch.tensor([1.0, 4, 2, 3, 9])
    )
    assert WEIGHTINGS.resolve("selective", {})(given).tolist() == [0, 1, 0, 1, 0]


def test_entropy_divergence_hand_worked():
    # h = (0, 1/2, 1, 0), d = (0, 1/2, 0, 1): h + d - h d = (0, 3/4, 1, 1). Kept: the last two.
    given = SimpleNamespace(
        counted_mask=torch.tensor([True] * 4),
        student_entropy=torch.tensor([0.0, 1, 2, 0]),
        reverse_kl=torch.tensor([0.0, 1, 0, 2]),
    )
    weights = WEIGHTINGS.resolve("entropy_divergence", {})(given)
    assert weights.tolist() == [0, 0, 2, 2]


def test_an_outlier_does_not_flatten_the_rest():
    entropy = torch.linspace(0, 1, 200)
    entropy[0] = 1e6
    given = SimpleNamespace(
        counted_mask=torch.tensor([True] * 200),
        student_entropy=entropy,
        reverse_kl=torch.linspace(1, 0, 200),
    )
    kept = WEIGHTINGS.resolve("entropy_divergence", {})(given) > 0
    # h + d - h d = 1 - (1 - h)(1 - d) is largest at both ends.
    assert kept[:40].all() and kept[-40:].all() and not kept[80:120].any()


def test_position_hand_worked():
    relative_position = torch.tensor([0.3, 1.0])
    given = SimpleNamespace(
        counted_mask=torch.tensor([True, True]), relative_position=relative_position
    )
    weights = WEIGHTINGS.resolve("position", {})(given)
    end = 0.25 + 0.75 / (1 + math.exp(-7))
    assert weights.tolist() == pytest.approx([0.625, end])


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("selective", {"kd_keep": 0.0}, "--kd-keep is 0.0, expected a number above 0, to 1"),
        ("entropy_divergence", {"kd_keep": 1.1}, "--kd-keep is 1.1"),
        ("position", {"kd_position_floor": -0.1}, "--kd-position-floor is -0.1"),
        ("position", {"kd_position_middle": 2.0}, "--kd-position-middle is 2.0"),
        ("position", {"kd_position_width": 0.0}, "--kd-position-width is 0.0"),
        ("best", {}, "--kd-weighting is 'best', expected one of uniform, selective"),
    ],
)
def test_out_of_range(name, settings, message):
    with pytest.raises(ValueError, match=message):
        WEIGHTINGS.resolve(name, settings)


@given(
    batches=st.lists(statistics(min_counted=0), min_size=1, max_size=6),
    keep=st.floats(0.01, 1),
    queue=st.integers(1, 40),
)
def test_the_global_queue(batches, keep, queue):
    """As in the authors' code: the batch joins, the oldest go, the gate is of the queue."""
    weighting = WEIGHTINGS.resolve("selective_global", {"kd_keep": keep, "kd_queue": queue})
    memory, last = {}, deque(maxlen=queue)
    for batch in batches:
        batch.memory = memory
        weights = weighting(batch)
        nlls, mask = batch.student_nll.tolist(), batch.counted_mask.tolist()
        last.extend(nll for nll, is_counted in zip(nlls, mask) if is_counted)
        gate = sorted(last, reverse=True)[math.ceil(keep * len(last)) - 1] if last else 0
        wanted = [float(m and nll >= gate) for nll, m in zip(nlls, mask)]
        assert weights.tolist() == wanted


def test_the_queue_has_the_tokens_of_all_processes():
    batch = SimpleNamespace(
        counted_mask=torch.tensor([True, True]),
        student_nll=torch.tensor([1.0, 3.0]),
        memory={"student_nll": torch.tensor([2.0, 5.0])},
        gather=lambda values: torch.cat([torch.tensor([4.0, 6.0]), values]),
    )
    weights = WEIGHTINGS.resolve("selective_global", {"kd_queue": 5})(batch)
    assert batch.memory["student_nll"].tolist() == [5.0, 4.0, 6.0, 1.0, 3.0]
    assert weights.tolist() == [0.0, 0.0]
