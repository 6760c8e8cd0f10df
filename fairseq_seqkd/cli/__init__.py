"""The subcommands of ``fairseq-seqkd``: they parse and call, nothing else."""
