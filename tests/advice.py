"""Whether the flags that a message names are flags of the command that printed it."""

import argparse
import importlib
import re

from fairseq_seqkd.cli.main import SUBCOMMANDS

# Other programs that messages advise, with the flags of theirs that they name.
OTHERS = {
    "fairseq-preprocess": {"--srcdict", "--tgtdict", "--dataset-impl", "--upsample-primary"},
    "fairseq-generate": {
        *("--pseudo-targets", "--path", "--quiet", "--replace-unk", "--scoring"),
    },
    "fairseq-train": {
        *("--user-dir", "--task", "--criterion", "--pseudo-targets", "--kd-cache"),
        *("--teacher-nbest", "--accept-unfinished"),
    },
}
_PROGRAM = re.compile(r"fairseq-(?:seqkd )?[a-z][a-z-]*")


def flags_of(subcommand):
    """The flags of a subcommand of ``fairseq-seqkd``."""
    module = importlib.import_module(f"fairseq_seqkd.cli.{SUBCOMMANDS[subcommand]}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return {flag for action in parser._actions for flag in action.option_strings}


def unknown_flags(subcommand, message):
    """The flags in a message that neither the subcommand nor another program in it has."""
    allowed = flags_of(subcommand)
    for program in _PROGRAM.findall(message):
        name = program.replace("fairseq-seqkd ", "")
        allowed |= OTHERS.get(name, set())
        allowed |= flags_of(name) if name in SUBCOMMANDS else set()
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", message)) - allowed


def errors_of(subcommand, stderr):
    """The error message in a subcommand's output, without the log before it."""
    return stderr.rpartition(f"fairseq-seqkd {subcommand}: ")[2]
