"""Reads text files line by line."""


def text_lines(path):
    """Yield the lines of a UTF-8 file; only a newline ends a line.

    Yields:
        the number from 1, the line without its end, and whether it had one (a last line
        without is often cut off)
    Raises:
        ValueError: a line is not UTF-8; names it
    """
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                yield number, raw.decode("utf-8").rstrip("\r\n"), raw.endswith(b"\n")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}:{number}: not UTF-8 ({error.reason}). Convert the file to UTF-8."
                ) from error
