"""Losses as functions of tensors: divergences, weightings, schedules; nothing knows fairseq."""

from fairseq_seqkd.losses import divergences, mixtures  # noqa: F401 - they register options
