from types import SimpleNamespace

import pytest

from fairseq_seqkd.registry import Axis, Parameter, refuse_unused

INNER = Axis("speed")
SLOPE = Parameter("slope", 2.0, "how steep", "above 0", lambda x: x > 0)
OUTER = Axis("way")
SPEED = Parameter("speed", "steady", "how fast", axis=INNER)
SIDE = Parameter("side", "left", "which side", choices=("left", "right"))


@INNER.value()
def steady():
    return 1.0


@INNER.value(slope=SLOPE)
def rising(*, time, slope):
    return slope * time


@OUTER.value(speed=SPEED, side=SIDE)
def road(distance, speed, side):
    return distance, speed, side


@OUTER.value(slope=SLOPE)
def path(distance, *, slope):
    return distance * slope


def test_defaults_and_given_parameters():
    assert OUTER.resolve("path", {})(3.0) == 6
    assert OUTER.resolve("path", {"slope": 0.5})(3.0) == 1.5


def test_facts_come_by_name():
    choice = INNER.resolve("rising", {})
    assert choice.needs == ("time",)
    assert choice(facts=SimpleNamespace(time=3, mood="good")) == 6


def test_a_parameter_can_be_a_choice_of_another_axis():
    distance, speed, side = OUTER.resolve("road", {"speed": "rising", "slope": 5.0})(1)
    assert (distance, side) == (1, "left")
    assert speed(facts=SimpleNamespace(time=2)) == 10


def test_every_parameter_with_its_defaults():
    found = OUTER.parameters()
    assert set(found) == {"speed", "side", "slope"}
    assert found["slope"] == (SLOPE, {"--way path": 2.0, "--speed rising": 2.0})


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("path", {"slope": -1.0}, "--slope is -1.0, expected above 0"),
        ("road", {"side": "up"}, "--side is 'up', expected one of left, right"),
        ("road", {"speed": "no"}, "--speed is 'no', expected one of steady, rising"),
        ("rail", {}, "--way is 'rail', expected one of road, path"),
    ],
)
def test_errors(name, settings, message):
    with pytest.raises(ValueError, match=message):
        OUTER.resolve(name, settings)


@pytest.mark.parametrize(
    "name, settings",
    [("path", {"slope": 1.0}), ("road", {"speed": "rising", "slope": 1.0}), ("road", {})],
)
def test_parameters_in_use_are_fine(name, settings):
    refuse_unused([OUTER], [(OUTER, name)], settings, settings)


@pytest.mark.parametrize(
    "name, settings, flag",
    [
        ("path", {"side": "left"}, "--side is left"),
        ("path", {"speed": "steady"}, "--speed is steady"),
        ("road", {"slope": 1.0}, "--slope is 1.0"),
        ("road", {"speed": "steady", "slope": 1.0}, "--slope is 1.0"),
    ],
)
def test_parameters_not_in_use_are_refused(name, settings, flag):
    message = f"{flag}, but nothing uses it: it belongs to .* and this is --way {name}"
    with pytest.raises(ValueError, match=message):
        refuse_unused([OUTER], [(OUTER, name)], settings, settings)
