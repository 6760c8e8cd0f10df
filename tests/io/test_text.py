import bz2
import gzip
import hashlib
import io
import lzma
import os
import sys
import threading
import tracemalloc

import pytest

from fairseq_seqkd.io import text
from fairseq_seqkd.io.text import TextFile, read_lines, text_lines

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

COMPRESS = {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
try:
    import zstandard

    COMPRESS["zstd"] = zstandard.ZstdCompressor().compress
except ImportError:  # optional
    pass
# Characters at which Python's splitlines or its text files would cut.
SEPARATORS = "\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e"


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", []),
        (b"a\n", [(1, "a", True)]),
        (b"a\nb", [(1, "a", True), (2, "b", False)]),
        (b"a\r\n\r\n", [(1, "a", True), (2, "", True)]),
        (b"a\r\r\n", [(1, "a\r", True)]),
        (f"a{SEPARATORS}b\n".encode(), [(1, f"a{SEPARATORS}b", True)]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", [(1, "a", True), (2, "\ufeffb", True)]),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb\xbf\n", [(1, "", True)]),
    ],
)
def test_lines_end_at_newlines_only(tmp_path, content, expected):
    (tmp_path / "text").write_bytes(content)
    assert list(text_lines(tmp_path / "text")) == expected


LINE = st.text(
    st.characters(exclude_characters="\n", exclude_categories=["Cs"])
    | st.sampled_from(SEPARATORS + "\ufeff"),
    max_size=12,
)


@hypothesis.settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    lines=st.lists(LINE, max_size=6),
    end=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
    kind=st.sampled_from(sorted(COMPRESS)),
    cut=st.integers(0, 100),
)
def test_what_is_written_is_read(tmp_path, lines, end, bom, kind, cut):
    """Any characters, line ends, byte-order mark and compression, in one part or two."""
    # What stands before a newline is its carriage return, and what begins a file its mark.
    hypothesis.assume(end == "\r\n" or not any(line.endswith("\r") for line in lines))
    hypothesis.assume(bom or not lines or not lines[0].startswith("\ufeff"))
    content = ("\ufeff" * bom + "".join(line + end for line in lines)).encode()
    compress, cut = COMPRESS[kind], min(cut, len(content))
    (tmp_path / "text").write_bytes(compress(content[:cut]) + compress(content[cut:]))
    hypothesis.assume(kind != "plain" or text._read_magic(io.BytesIO(content)) == b"")
    assert list(read_lines(tmp_path / "text")) == lines
    file = TextFile(tmp_path / "text")
    assert file.sha256() == hashlib.sha256(content).hexdigest()
    assert [line for _, line, _ in file.lines()] == lines


@pytest.mark.parametrize("kind", sorted(set(COMPRESS) - {"plain"}))
def test_damaged_files_are_refused(tmp_path, kind):
    whole = COMPRESS[kind]("".join(f"line {i}\n" for i in range(5000)).encode())
    path = tmp_path / "text"
    for content in (whole[:-9], whole[:40] + b"damaged" * 9 + whole[40:], whole + b"more text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"(cannot be read as|cut off: the) {kind}"):
            list(read_lines(path))
    path.write_bytes(whole + b"\0" * 512)  # padding, as on tapes
    assert len(list(read_lines(path))) == 5000


def test_frames_that_zstd_skips(tmp_path):
    zstd = pytest.importorskip("zstandard")
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00size"
    (tmp_path / "text").write_bytes(skipped + zstd.ZstdCompressor().compress(b"a\nb\n"))
    assert list(read_lines(tmp_path / "text")) == ["a", "b"]


def test_zstd_without_its_package(tmp_path, monkeypatch):
    for module, _ in text._DECOMPRESSORS["zstd"]:
        monkeypatch.setitem(sys.modules, module, None)  # importing it is an ImportError
    (tmp_path / "text").write_bytes(b"\x28\xb5\x2f\xfd more")
    with pytest.raises(ValueError, match="text is compressed with zstd.*pip install zstandard"):
        list(read_lines(tmp_path / "text"))


def test_a_line_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "text").write_bytes(b"abc\n\xff\xfe\n")
    with pytest.raises(ValueError, match="text:2: not UTF-8 .*Convert the file"):
        list(text_lines(tmp_path / "text"))


def test_utf16_is_named(tmp_path):
    (tmp_path / "text").write_bytes("a\nb\n".encode("utf-16"))
    with pytest.raises(ValueError, match="text:1: UTF-16, .* iconv -f UTF-16 -t UTF-8"):
        list(text_lines(tmp_path / "text"))


def feed(path, content):
    """Write into a named pipe, from another thread, a byte at a time at first."""

    def write():
        with open(path, "wb", buffering=0) as pipe:
            for part in (content[:1], content[1:2], content[2:]):
                pipe.write(part)

    os.mkfifo(path)
    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", sorted(COMPRESS))
def test_a_pipe_can_be_read_several_times(tmp_path, kind):
    content = "a\n\u00e9\u2028\rb\nlast".encode()
    thread = feed(tmp_path / "pipe", COMPRESS[kind](content))
    file = TextFile(tmp_path / "pipe")
    thread.join()
    expected = [(1, "a", True), (2, "\u00e9\u2028\rb", True), (3, "last", False)]
    assert list(file.lines()) == list(file.lines()) == expected
    assert file.sha256() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("read", [text_lines, lambda path: TextFile(path).lines()])
def test_standard_input(monkeypatch, read):
    stdin = io.TextIOWrapper(io.BytesIO(gzip.compress(b"a\nb\n")))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert list(read("-")) == [(1, "a", True), (2, "b", True)]


def test_a_line_of_a_pipe_is_there_before_the_pipe_ends():
    """Whoever types or pipes lines in sees the first before the last is written."""
    reading, writing = os.pipe()
    os.write(writing, b"first\nsec")
    lines = read_lines(f"/dev/fd/{reading}")
    assert next(lines) == "first"
    os.write(writing, b"ond\n")
    os.close(writing)
    assert list(lines) == ["second"]
    os.close(reading)


def test_memory_does_not_grow_with_the_file(tmp_path):
    (tmp_path / "text").write_bytes(gzip.compress(b"a line of some words\n" * 100_000))
    tracemalloc.start()
    assert sum(1 for _ in read_lines(tmp_path / "text")) == 100_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*nosuch"):
        TextFile(str(tmp_path / "nosuch"))
