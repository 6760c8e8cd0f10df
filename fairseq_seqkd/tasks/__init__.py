"""The tasks; importing this registers them with fairseq."""

from fairseq_seqkd.tasks import translation_seqkd  # noqa: F401
