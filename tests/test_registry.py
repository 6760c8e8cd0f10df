import pytest

from fairseq_seqkd.registry import Axis, Parameter, refuse_unused

INNER = Axis("speed")
SLOPE = Parameter("slope", 2.0, "how steep", "above 0", lambda x: x > 0)
OUTER = Axis("way")
SPEED = Parameter("speed", "steady", "how fast", axis=INNER)
SIDE = Parameter("side", "left", "which side", allowed=("left", "right"))


@INNER.option()
def steady(time):
    """Always the same."""
    return 1.0


@INNER.option(slope=SLOPE)
def rising(time, *, slope):
    """Faster and faster."""
    return slope * time


@OUTER.option(speed=SPEED, side=SIDE)
def road(distance, speed, side):
    """A way that is built."""
    return distance, speed, side


@OUTER.option(slope=SLOPE)
def path(distance, *, slope):
    """A way that is not.

    More of it.
    """
    return distance * slope


def test_defaults_and_given_parameters():
    assert OUTER.resolve("path", {})(3.0) == 6
    assert OUTER.resolve("path", {"slope": 0.5})(3.0) == 1.5


def test_parameters_are_keywords_of_the_resolved_function():
    assert INNER.resolve("rising", {}).keywords == {"slope": 2.0}
    assert INNER.resolve("rising", {})(3) == 6


def test_the_first_line_of_the_docstring_is_the_options_help():
    helps = {name: option.help for name, option in OUTER.options.items()}
    assert helps == {"road": "A way that is built.", "path": "A way that is not."}


def test_an_option_may_do_nothing():
    axis = Axis("way")
    axis.add_noop("stay", "Nothing happens.")
    assert axis.resolve("stay", {}) is None
    assert axis.options["stay"].help == "Nothing happens."
    with pytest.raises(ValueError, match="--way is 'go', expected one of stay"):
        axis.resolve("go", {})


def test_a_parameter_can_name_an_option_of_another_axis():
    distance, speed, side = OUTER.resolve("road", {"speed": "rising", "slope": 5.0})(1)
    assert (distance, side) == (1, "left")
    assert speed(2) == 10


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


def test_registering_a_name_twice_or_an_unknown_argument_is_refused():
    axis = Axis("way")
    axis.option("go")(path)
    with pytest.raises(ValueError, match="--way has an option 'go' already"):
        axis.option("go")(path)
    with pytest.raises(ValueError, match=r"--way run: path\(\) has no argument 'speed'"):
        axis.option("run", speed=SPEED)(path)


def test_a_function_may_take_its_parameters_together():
    axis = Axis("way")

    @axis.option(slope=SLOPE)
    def anywhere(**settings):
        """With all settings."""
        return settings

    assert axis.resolve("anywhere", {})() == {"slope": 2.0}
