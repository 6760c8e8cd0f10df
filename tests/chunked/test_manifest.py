import pytest

from fairseq_seqkd.chunked.manifest import differences

FOUND = {"beam": 5, "data": {"train.bin": "12ab", "split": "train"}}


@pytest.mark.parametrize(
    "expected, lines",
    [
        ({"beam": 5}, []),
        ({"beam": None}, []),
        ({"data": {"split": None}}, []),
        ({"beam": 4}, ["beam: found 5, expected 4"]),
        ({"lenpen": 1.0}, ["lenpen: found None, expected 1.0"]),
        ({"data": {"split": "valid"}}, ["data.split: found train, expected valid"]),
        ({"dict": {"a": "x"}}, ["dict.a: found None, expected x"]),
    ],
)
def test_differences(expected, lines):
    assert differences(FOUND, expected) == lines


def test_exactly_leaves_no_room():
    found = {"a": 1, "b": {"c": 2}}
    assert differences(found, {"a": None, "b": {}}) == []
    assert differences(found, {"a": None, "b": {}}, exactly=True) == [
        "a: found 1, expected None",
        "b.c: found 2, expected None",
    ]
    assert differences(found, {"a": 1, "b": {"c": 2}}, exactly=True) == []
