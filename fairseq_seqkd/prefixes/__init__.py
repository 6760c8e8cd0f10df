"""Prefix policies: whose history the decoder is conditioned on in training.

With ``data`` a batch stays as it is. A policy replaces the targets of some rows by ones that
the student (or student and teacher together) generate now: which rows, by which rule for the
next token, and how long. Rows and samples follow from (seed, update, sentence id) alone: a
resumed run and any number of processes draw the same.
"""

from fairseq_seqkd.prefixes.policies import PREFIXES  # noqa: F401
from fairseq_seqkd.prefixes.replay import PolicyMemory  # noqa: F401
from fairseq_seqkd.prefixes.row_rules import TrainingStep  # noqa: F401
from fairseq_seqkd.prefixes.student_rows import PrefixedBatch  # noqa: F401
