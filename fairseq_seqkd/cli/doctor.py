"""Say whether what is installed goes together, whether checkpoints load, and what to do if not.

It runs where fairseq cannot be imported, too. Lines begin with ok, with note (it works, but
there is something to know) or with trouble; the exit status is 1 if there is any trouble.
Before torch 2.6, looking at a checkpoint runs whatever its pickle says, as loading it does.

Example:
    fairseq-seqkd doctor
    fairseq-seqkd doctor teacher.pt checkpoints/checkpoint_best.pt
"""

import sys

from fairseq_seqkd import doctor


def add_arguments(parser):
    parser.add_argument(
        "checkpoints", nargs="*", metavar="CHECKPOINT", help="that fairseq-train wrote"
    )
    parser.add_argument(
        "--teacher-data",
        metavar="DIR",
        help="the folder with the checkpoints' dictionaries; default: beside each of them, "
        "else where it was trained",
    )


def run(arguments):
    findings = doctor.examine(arguments.checkpoints, arguments.teacher_data)
    print(doctor.report(findings))
    if doctor.troubles(findings):
        sys.exit(1)
