import pytest

from fairseq_seqkd.io.text import text_lines


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", []),
        (b"a\n", [(1, "a", True)]),
        (b"a\nb", [(1, "a", True), (2, "b", False)]),
        (b"a\r\n\r\n", [(1, "a", True), (2, "", True)]),
        # Python's splitlines would cut at these.
        ("a\u2028b\x85c\x0cd\n".encode(), [(1, "a\u2028b\x85c\x0cd", True)]),
        (b"a\rb\n", [(1, "a\rb", True)]),
    ],
)
def test_lines_end_at_newlines_only(tmp_path, content, expected):
    (tmp_path / "text").write_bytes(content)
    assert list(text_lines(tmp_path / "text")) == expected


def test_a_line_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "text").write_bytes(b"abc\n\xff\xfe\n")
    with pytest.raises(ValueError, match="text:2: not UTF-8 .*Convert the file"):
        list(text_lines(tmp_path / "text"))
