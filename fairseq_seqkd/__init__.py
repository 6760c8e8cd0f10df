"""Knowledge distillation of sequence models, as a fairseq plug-in.

Importing this package (``--user-dir`` does it) registers its criteria and its
task with fairseq, and lets ``torch.load`` read fairseq's checkpoints.
"""

from fairseq_seqkd import compat, criterions, tasks  # noqa: F401

__version__ = "0.1.0"
