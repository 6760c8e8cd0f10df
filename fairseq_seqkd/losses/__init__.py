"""Losses as functions of tensors: divergences, weightings, schedules; nothing knows fairseq."""
