"""Pure functions of tensors; nothing here knows fairseq."""
