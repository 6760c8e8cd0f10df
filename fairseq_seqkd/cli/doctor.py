"""Check that the installed packages go together and that checkpoints load, and say what to do.

It also runs where fairseq cannot be imported. Every line begins with "ok", "note" (it works,
but there is something to know) or "trouble"; the exit status is 1 if there is any trouble.
Before torch 2.6, examining a checkpoint runs the code in its pickle, as any loading does.

Example:
    fairseq-seqkd doctor
    fairseq-seqkd doctor teacher.pt checkpoints/checkpoint_best.pt
"""

import sys

from fairseq_seqkd.doctor.diagnosis import as_text, count_troubles, examine


def add_arguments(parser):
    parser.add_argument(
        "checkpoints",
        nargs="*",
        metavar="CHECKPOINT",
        help="checkpoints that fairseq-train wrote",
    )
    parser.add_argument(
        "--teacher-data",
        metavar="DIR",
        help="folder with the checkpoints' dictionaries; default: beside each checkpoint, else "
        "the data folder of its training",
    )


def run(arguments):
    findings = examine(arguments.checkpoints, arguments.teacher_data)
    print(as_text(findings))
    if count_troubles(findings):
        sys.exit(1)
