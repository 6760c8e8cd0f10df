"""Print the path to give to fairseq's --user-dir.

Example:
    fairseq-train DATA --user-dir $(fairseq-seqkd user-dir) --criterion word_kd ...
"""

import os

import fairseq_seqkd


def add_arguments(parser):
    """It has none."""


def run(arguments):
    print(os.path.dirname(os.path.abspath(fairseq_seqkd.__file__)))
