"""Knowledge distillation of sequence models, as a fairseq plug-in.

Importing this package, as ``--user-dir`` does, registers its criteria and its task with fairseq
and lets ``torch.load`` read fairseq checkpoints. In a process of the command ``fairseq-seqkd``
that waits until a subcommand needs it, since importing torch and fairseq takes seconds.
"""

import os
import sys
import warnings

__version__ = "0.1.0"

# Why `register` failed, or None; ``fairseq-seqkd doctor`` must run even then.
import_error = None


def register():
    """Register the criteria and the task, and extend what ``torch.load`` reads.

    Raises:
        Exception: whatever importing fairseq raises, such as a ValueError from upstream fairseq
            on Python 3.11
    """
    from fairseq_seqkd import compat, criterions, tasks  # noqa: F401


def register_if_possible():
    """As `register`; an error becomes a warning and ``import_error``."""
    global import_error
    try:
        register()
    except Exception as error:
        import_error = f"{type(error).__name__}: {error}"
        warnings.warn(
            f"fairseq_seqkd cannot be used here ({import_error}). What to do about it: "
            "fairseq-seqkd doctor",
            RuntimeWarning,
            stacklevel=2,
        )


def _is_command():
    """Whether this is a process of the command ``fairseq-seqkd``."""
    program = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    words = getattr(sys, "orig_argv", [])  # Python 3.10 and later
    return os.path.splitext(program)[0] == "fairseq-seqkd" or "fairseq_seqkd.cli.main" in words


if "fairseq" in sys.modules:  # as --user-dir: an error has to stop the training
    register()
elif not _is_command():
    register_if_possible()
