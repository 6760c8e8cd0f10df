import numpy as np
import pytest

from fairseq_seqkd.io.line_counts import likely_line, where_they_part


def parallel(rng, size, gone):
    """Lengths of a text, and of a translation that lacks some lines."""
    text = rng.integers(3, 60, size)
    return text, np.delete(text * rng.normal(1.2, 0.1, size), gone)


@pytest.mark.parametrize("missing", [1, 3, 20, 200])
@pytest.mark.parametrize("scattered", [False, True])
def test_the_first_missing_line_is_found_almost_exactly(missing, scattered):
    distances = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        gone = np.arange(missing) + rng.integers(0, 2000 - missing)
        if scattered:
            gone = np.sort(rng.choice(2000, missing, replace=False))
        pair = parallel(rng, 2000, gone)
        assert likely_line(*pair) == likely_line(*pair[::-1])
        distances.append(abs(likely_line(*pair) - 1 - gone[0]))
    assert np.median(distances) <= 2 and np.quantile(distances, 0.9) <= 8


@pytest.mark.parametrize(
    "lengths, others, expected", [([], [3, 4], None), ([9, 2], [9, 2, 30], 3)]
)
def test_short_texts(lengths, others, expected):
    assert likely_line(lengths, others) == expected
    assert bool(where_they_part(lengths, others)) == (expected is not None)
