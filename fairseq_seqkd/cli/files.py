"""What the subcommands that make one file of another have in common."""

import os


def check_out(out, name, source):
    """Refuse a file that cannot be written, before there is work done for it.

    Args:
        out: its path
        name: of the argument
        source: the file that it is made of
    Raises:
        ValueError: it is the source itself, a folder, or in a folder that is not there
    """
    folder = os.path.dirname(os.path.abspath(out))
    if os.path.isdir(out):
        raise ValueError(f"{name} is {out!r}, a folder: expected the name of a file")
    if not os.path.isdir(folder):
        raise ValueError(f"{name} is {out!r}, but there is no folder {folder!r}: make it first")
    if os.path.exists(out) and os.path.exists(source) and os.path.samefile(out, source):
        raise ValueError(f"{name} is {out!r}, which is {source!r} itself: name another file")
