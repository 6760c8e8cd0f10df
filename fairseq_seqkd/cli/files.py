"""Checks of output paths, made before any work is done for them."""

import os


def check_out(out, name, source, is_folder=False):
    """Refuse an output path that cannot be written.

    Args:
        out: the path
        name: name of the argument, for the error message
        source: the input file
        is_folder: whether the output is a new folder
    Raises:
        ValueError: it is the input file, an existing folder, or in a folder that does not exist
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
    """Refuse an output folder that cannot be made or written to.

    Raises:
        ValueError: a part of its path is a file, or is not writable
    """
    existing = os.path.abspath(out)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise ValueError(f"--out is {out!r}, but {existing!r} is a file: name a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"--out is {out!r}, but {existing!r} cannot be written to")
