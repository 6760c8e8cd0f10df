"""Losses as functions of tensors: divergences, weightings, schedules; nothing knows fairseq."""

from fairseq_seqkd.losses import divergences, mixtures, ranking  # noqa: F401 - register options
