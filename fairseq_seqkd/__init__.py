"""Knowledge distillation of sequence models, as a fairseq plug-in.

Importing this package (``--user-dir`` does it) registers its criteria and its
task with fairseq, and lets ``torch.load`` read fairseq's checkpoints.
"""

import sys
import warnings

__version__ = "0.1.0"

# Why nothing was registered: ``fairseq-seqkd doctor`` must run where fairseq does not.
import_error = None

# fairseq imports --user-dir when it is there itself: then an error has to stop the training.
_fairseq_is_there = "fairseq" in sys.modules
try:
    from fairseq_seqkd import compat, criterions, tasks  # noqa: F401
except Exception as error:  # upstream fairseq on Python 3.11 is a ValueError, for instance
    if _fairseq_is_there:
        raise
    import_error = f"{type(error).__name__}: {error}"
    warnings.warn(
        f"fairseq_seqkd cannot be used here ({import_error}). What to do about it: "
        "fairseq-seqkd doctor",
        RuntimeWarning,
        stacklevel=2,
    )
