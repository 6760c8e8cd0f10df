"""Knowledge distillation of sequence models, as a fairseq plug-in.

Importing this package, as ``--user-dir`` does, registers its criteria and its task with fairseq
and lets ``torch.load`` read fairseq checkpoints.
"""

import sys
import warnings

__version__ = "0.1.0"

# Why the import below failed, or None; ``fairseq-seqkd doctor`` must run even then.
import_error = None

# If fairseq imports this package as --user-dir, an error has to stop the training.
_imported_by_fairseq = "fairseq" in sys.modules
try:
    from fairseq_seqkd import compat, criterions, tasks  # noqa: F401
except Exception as error:  # such as ValueError from upstream fairseq on Python 3.11
    if _imported_by_fairseq:
        raise
    import_error = f"{type(error).__name__}: {error}"
    warnings.warn(
        f"fairseq_seqkd cannot be used here ({import_error}). What to do about it: "
        "fairseq-seqkd doctor",
        RuntimeWarning,
        stacklevel=2,
    )
