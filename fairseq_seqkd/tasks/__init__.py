"""The task `translation_seqkd`; importing this package registers it with fairseq."""

from fairseq_seqkd.tasks import translation_seqkd  # noqa: F401
