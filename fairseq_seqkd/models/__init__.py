"""fairseq models seen from outside: checkpoints, parameters, logits, conversion."""
