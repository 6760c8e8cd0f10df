"""Lines that a text repeats, or that stand in another one."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.io.text import TextFile
from fairseq_seqkd.io.unique_lines import UniqueLines, hashes_of, repeated_lines

LINES = st.lists(st.sampled_from(["", " ", "a", "a b", " a  b", "b", "c", "\u3000", "é"]))


def write(path, lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return TextFile(str(path))


@given(st.lists(LINES, max_size=3), LINES)
@settings(max_examples=100, deadline=None)
def test_they_are_those_of_a_plain_loop(tmp_path_factory, texts, excluded):
    folder = tmp_path_factory.mktemp("lines")
    files = [write(folder / str(number), lines) for number, lines in enumerate(texts)]
    unique = UniqueLines(files, [write(folder / "excluded", excluded)])
    seen, kept = set(), []
    expected = {"duplicate": 0, "excluded": 0, "empty": 0}
    others = {tuple(line.split()) for line in excluded}
    for line in (line for lines in texts for line in lines):
        words = tuple(line.split())
        if not words:
            expected["empty"] += 1
        elif words in others:
            expected["excluded"] += 1
        elif words in seen:
            expected["duplicate"] += 1
        else:
            kept.append(line)
        seen.add(words)
    assert list(unique) == kept
    assert unique.numbers == expected


def test_a_text_that_grows_while_it_is_read(tmp_path):
    file = write(tmp_path / "text", ["a", "b"])
    lines = iter(UniqueLines([file]))
    next(lines)
    with open(tmp_path / "text", "a") as more:
        more.write("c\n")
    with pytest.raises(ValueError, match="text: found 2 lines, and then 3. Expected text"):
        list(lines)


def peak(n_lines):
    """The most memory that comparing so many different lines took, in bytes."""
    tracemalloc.start()
    try:
        repeated_lines(hashes_of(str(number) for number in range(n_lines)), hashes_of(["1"]))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_twelve_bytes_a_line():
    assert peak(220_000) - peak(20_000) <= 12 * 200_000
