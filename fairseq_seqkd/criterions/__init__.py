"""The criteria; importing this registers them with fairseq."""

from fairseq_seqkd.criterions import (  # noqa: F401
    distill,
    dskd,
    gkd,
    imit_kd,
    seq_inter,
    seq_kd,
    word_kd,
)
