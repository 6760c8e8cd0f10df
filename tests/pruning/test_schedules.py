import pytest

from fairseq_seqkd.pruning.schedules import SCHEDULES

CUBIC = {"prune_start_update": 100, "prune_end_update": 200, "prune_every": 20}


@pytest.mark.parametrize(
    "update, expected", [(-1, 0), (0, 0), (99, 0), (100, 1), (101, 1), (9999, 1)]
)
def test_one_shot(update, expected):
    assert SCHEDULES.resolve("one_shot", {"prune_start_update": 100})(update) == expected


@pytest.mark.parametrize(
    "update, expected",
    [
        *[(-1, 0), (0, 0), (100, 0), (119, 0)],
        *[(120, 1 - 0.8**3), (139, 1 - 0.8**3), (180, 1 - 0.2**3), (199, 1 - 0.2**3)],
        *[(200, 1), (5000, 1)],
    ],
)
def test_cubic_is_zhu_and_guptas(update, expected):
    assert SCHEDULES.resolve("cubic", CUBIC)(update) == pytest.approx(expected)


def test_cubic_ends_at_its_end_whatever_its_steps():
    schedule = SCHEDULES.resolve("cubic", {**CUBIC, "prune_every": 30})
    rises = [u for u in range(300) if schedule(u) > schedule(u - 1)]
    assert rises == [130, 160, 190, 200]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"prune_start_update": -1}, "--prune-start-update is -1, expected a whole number"),
        ({"prune_end_update": 0}, "--prune-end-update is 0, expected"),
        ({"prune_every": 0}, "--prune-every is 0, expected a whole number from 1 upwards"),
    ],
)
def test_ranges(settings, message):
    with pytest.raises(ValueError, match=message):
        SCHEDULES.resolve("cubic", {**CUBIC, **settings})
