"""Reads text files line by line: compressed or not, from a file, a pipe or standard input.

A line ends at a newline, and the carriage return before it belongs to the end (Windows). No
other character ends a line: not a carriage return within it, nor U+2028 and the like.
"""

import codecs
import contextlib
import hashlib
import importlib
import io
import os
import shutil
import sys
import tempfile

from fairseq_seqkd.io.files import name_in_errors

STDIN = "-"
_BLOCK_BYTES = 1 << 16
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # its first block, or the end of an empty file
_FORMAT_OF = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    # Frames that a zstd file may begin with (pzstd), and that are skipped.
    **{bytes([byte]) + b"\x2a\x4d\x18": "zstd" for byte in range(0x50, 0x60)},
    **{b"BZh%d" % level + block: "bzip2" for level in range(1, 10) for block in _BZIP2_BLOCKS},
}
# {format: ((module, function of it that makes a decompressor), ...)}, the first one installed.
_DECOMPRESSORS = {
    "gzip": (("zlib", lambda zlib: zlib.decompressobj(wbits=31)),),
    "bzip2": (("bz2", lambda bz2: bz2.BZ2Decompressor()),),
    "xz": (("lzma", lambda lzma: lzma.LZMADecompressor(lzma.FORMAT_XZ)),),
    "zstd": (
        ("compression.zstd", lambda zstd: zstd.ZstdDecompressor()),  # Python 3.14
        ("zstandard", lambda zstd: zstd.ZstdDecompressor().decompressobj()),
        ("backports.zstd", lambda zstd: zstd.ZstdDecompressor()),
        ("pyzstd", lambda zstd: zstd.ZstdDecompressor()),
    ),
}
_PACKAGE_OF = {"zstd": "pip install zstandard"}


def read_lines(path):
    """Yield the lines of a UTF-8 file, without their ends; memory does not grow with the file.

    Args:
        path: a file or pipe; ``-`` is standard input. gzip, bzip2, xz and zstd are recognised
            by the content; a byte-order mark is dropped
    Raises:
        OSError: the file cannot be read
        ValueError: a line is not UTF-8, the file is damaged, or zstd is not installed
    """
    for _, line, _ in text_lines(path):
        yield line


def text_lines(path, errors="strict"):
    """Yield what `read_lines` yields with more about each line.

    Args:
        path: as for `read_lines`
        errors: ``replace`` puts U+FFFD where a line is not UTF-8
    Yields:
        the number from 1, the line without its end, and whether it had one (a last line
        without is often cut off)
    """
    with _open_binary(path) as file:
        yield from _lines(file, name_of(path), errors)


def name_of(path):
    """The name of a text input in messages."""
    return "standard input" if path == STDIN else os.fspath(path)


class TextFile:
    """A text input that can be read several times; a pipe is copied to a temporary file.

    Args:
        path: as for `read_lines`
    Raises:
        FileNotFoundError: there is no such file
    """

    def __init__(self, path):
        self.path = path
        self.name = name_of(path)
        self._copy = None
        if path != STDIN and not os.path.exists(path):
            raise FileNotFoundError(f"no file {path!r}")
        if path == STDIN or not os.path.isfile(path):
            self._copy = tempfile.TemporaryFile()
            with _open_binary(path) as pipe, name_in_errors(tempfile.gettempdir()):
                shutil.copyfileobj(pipe, self._copy)

    def lines(self):
        """Yield as `text_lines` does."""
        with self._open() as file:
            yield from _lines(file, self.name)

    def sha256(self):
        """The SHA-256 of the content, decompressed, as a hexadecimal string."""
        digest = hashlib.sha256()
        with self._open() as file:
            for block in _content(file, self.name):
                digest.update(block)
        return digest.hexdigest()

    def _open(self):
        if self._copy is None:
            return _open_binary(self.path)
        self._copy.seek(0)
        return contextlib.nullcontext(self._copy)


def _open_binary(path):
    return contextlib.nullcontext(sys.stdin.buffer) if path == STDIN else open(path, "rb")


def _lines(file, name, errors="strict"):
    stream = io.BufferedReader(_Blocks(_content(file, name)), _BLOCK_BYTES)
    for number, raw in enumerate(stream, 1):
        if number == 1 and raw.startswith(codecs.BOM_UTF8):
            raw = raw[len(codecs.BOM_UTF8) :]
        if not raw:  # a file that is nothing but a byte-order mark has no line
            return
        is_ended = raw.endswith(b"\n")
        body = raw[: -2 if raw.endswith(b"\r\n") else -1] if is_ended else raw
        try:
            line = body.decode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}:{number}: {_explain(error, number, raw)}") from error
        yield number, line, is_ended


def _explain(error, number, raw):
    if number == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16, expected UTF-8. Convert the file: iconv -f UTF-16 -t UTF-8"
    return f"not UTF-8 ({error.reason}). Convert the file to UTF-8."


class _Blocks(io.RawIOBase):
    """A stream of the bytes of an iterator's blocks."""

    def __init__(self, blocks):
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _content(file, name):
    """Yield the content of a binary file in blocks, decompressed."""
    head = _read_magic(file)
    blocks = _chain(head, iter(lambda: file.read1(_BLOCK_BYTES), b""))
    if head not in _FORMAT_OF:
        return blocks
    return _decompressed(blocks, _FORMAT_OF[head], name)


def _read_magic(file):
    """The first bytes of a file, no more than it takes to know whether it is compressed."""
    head = b""
    while head not in _FORMAT_OF and any(magic.startswith(head) for magic in _FORMAT_OF):
        byte = file.read(1)
        if not byte:
            break
        head += byte
    return head


def _chain(head, blocks):
    yield head
    yield from blocks


def _decompressed(blocks, kind, name):
    """Yield decompressed blocks of a file, which may have several compressed parts."""
    new_decompressor = _decompressor_of(kind, name)
    decompressor = new_decompressor()
    for block in blocks:
        while block:
            if decompressor.eof:
                block = block.lstrip(b"\0")  # padding between parts
                if not block:
                    break
                decompressor = new_decompressor()
            try:
                content = decompressor.decompress(block)
            except Exception as error:  # each module has its own class of errors
                raise ValueError(
                    f"{name} cannot be read as {kind}: {error}. Copy or decompress the file."
                ) from error
            yield content
            block = decompressor.unused_data if decompressor.eof else b""
    if not decompressor.eof:
        raise ValueError(f"{name} is cut off: the {kind} data has no end. Copy it again.")


def _decompressor_of(kind, name):
    for module, make in _DECOMPRESSORS[kind]:
        with contextlib.suppress(ImportError):
            installed = importlib.import_module(module)
            return lambda: make(installed)
    remedy = _PACKAGE_OF.get(kind, f"a Python with the module {_DECOMPRESSORS[kind][0][0]}")
    raise ValueError(
        f"{name} is compressed with {kind}, which this Python cannot read: {remedy}, or "
        "decompress the file"
    )
