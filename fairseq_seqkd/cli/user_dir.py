"""Print the folder of this package, the value of fairseq's --user-dir.

Example:
    fairseq-train DATA --user-dir $(fairseq-seqkd user-dir) --criterion word_kd ...
"""

import os

import fairseq_seqkd


def add_arguments(parser):
    """Add nothing: this subcommand has no arguments."""


def run(arguments):
    print(os.path.dirname(os.path.abspath(fairseq_seqkd.__file__)))
