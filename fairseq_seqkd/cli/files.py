"""What the subcommands that make one file of another have in common."""

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
