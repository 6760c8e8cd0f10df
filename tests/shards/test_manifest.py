import pytest

from fairseq_seqkd.shards import differences

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
