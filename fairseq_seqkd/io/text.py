"""Reads lines of text files."""


def text_lines(path):
    """Yield (line number, line, whether it ended) of a UTF-8 file, cut at newlines alone.

    Raises:
        ValueError: names the line that is not UTF-8
    """
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                yield number, raw.decode("utf-8").rstrip("\r\n"), raw.endswith(b"\n")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}:{number}: not UTF-8 ({error.reason}). Convert the file to UTF-8."
                ) from error
