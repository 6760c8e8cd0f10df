"""Where subcommands may write to."""

import os


def check_out(out, name, source, is_folder=False):
    """Refuse what cannot be written, before there is work done for it.

    Args:
        out: its path
        name: of the argument
        source: the file that it is made of
        is_folder: whether it is to be a new folder
    Raises:
        ValueError: it is the source itself, a folder (or, if it is to be one, there
            already), or in a folder that is not there
    """
    folder = os.path.dirname(os.path.abspath(out))
    if is_folder and os.path.lexists(out):
        raise ValueError(f"{name} is {out!r}, which is there already: name a new folder")
    if os.path.isdir(out):
        raise ValueError(f"{name} is {out!r}, a folder: expected the name of a file")
    if not os.path.isdir(folder):
        raise ValueError(f"{name} is {out!r}, but there is no folder {folder!r}: make it first")
    if os.path.exists(out) and os.path.exists(source) and os.path.samefile(out, source):
        raise ValueError(f"{name} is {out!r}, which is {source!r} itself: name another file")


def check_folder(out):
    """Refuse a folder that cannot be made or written to, before there is work done for it.

    Raises:
        ValueError: something in its path is a file, or may not be written to
    """
    there = os.path.abspath(out)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise ValueError(f"--out is {out!r}, but {there!r} is a file: name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"--out is {out!r}, but {there!r} cannot be written to")
