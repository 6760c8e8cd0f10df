"""The help of every subcommand, as text files beside this one.

A subcommand's parser lists filters, selectors and schemes, whose modules import torch and
fairseq. That takes seconds, so ``SUBCOMMAND --help`` prints a file. ``make flags`` writes the
files, and a test compares them with the parsers.
"""

import os


def path_of(name):
    """The file with the help of a subcommand."""
    return os.path.join(os.path.dirname(__file__), f"{name}.txt")


def help_page(name):
    """The help of a subcommand."""
    with open(path_of(name), encoding="utf-8") as file:
        return file.read()
