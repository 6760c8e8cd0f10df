import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_seqkd.losses.schedules import SCHEDULES, needs_progress

PARAMETERS = {
    "constant": st.fixed_dictionaries({"kd_beta": st.floats(0, 1)}),
    "linear": st.fixed_dictionaries({"kd_final_beta": st.floats(0, 1)}),
    "exponential": st.fixed_dictionaries(
        {"kd_schedule_base": st.floats(1.001, 1e6), "kd_schedule_warmup": st.floats(0, 0.999)}
    ),
    "reverse_sigmoid": st.just({}),
}


def beta(name, progress, settings=None):
    return SCHEDULES.resolve(name, settings or {})(progress)


@pytest.mark.parametrize("name", SCHEDULES.options)
@given(data=st.data())
def test_stays_in_0_to_1_and_never_rises(name, data):
    settings = data.draw(PARAMETERS[name])
    times = sorted(data.draw(st.lists(st.floats(0, 1), min_size=2, max_size=5)))
    values = [beta(name, time, settings) for time in times]
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    "name, settings, at_0, at_half, at_1",
    [
        ("constant", {"kd_beta": 0.3}, 0.3, 0.3, 0.3),
        ("linear", {}, 1, 0.5, 0),
        ("linear", {"kd_final_beta": 0.4}, 1, 0.7, 0.4),
        ("exponential", {}, 1, 200**-0.5, 1 / 200),
        ("exponential", {"kd_schedule_base": 2.0}, 1, 2**-0.5, 0.5),
        ("exponential", {"kd_schedule_warmup": 0.5}, 1, 1, 200**-0.5),
        ("exponential", {"kd_schedule_warmup": 0.25}, 1, 200**-0.25, 200**-0.75),
        ("reverse_sigmoid", {}, 0.9999546, 0.5, 0.0000454),
    ],
)
def test_values(name, settings, at_0, at_half, at_1):
    values = [beta(name, progress, settings) for progress in (0, 0.5, 1)]
    assert values == pytest.approx([at_0, at_half, at_1], abs=1e-7)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("constant", {"kd_beta": 1.5}, "--kd-beta is 1.5, expected a number from 0 to 1"),
        ("linear", {"kd_final_beta": -1.0}, "--kd-final-beta is -1.0"),
        ("exponential", {"kd_schedule_base": 1.0}, "--kd-schedule-base is 1.0"),
        ("exponential", {"kd_schedule_warmup": 1.0}, "--kd-schedule-warmup is 1.0"),
        ("cosine", {}, "--kd-schedule is 'cosine', expected one of constant, linear, exp"),
    ],
)
def test_out_of_range(name, settings, message):
    with pytest.raises(ValueError, match=message):
        SCHEDULES.resolve(name, settings)


def test_only_constant_needs_no_length_of_training():
    needs = {name: needs_progress(SCHEDULES.resolve(name, {})) for name in SCHEDULES.options}
    assert needs.pop("constant") is False
    assert SCHEDULES.resolve("constant", {"kd_beta": 0.3})(None) == 0.3
    assert set(needs.values()) == {True}
