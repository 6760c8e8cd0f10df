"""The subcommands of ``fairseq-seqkd``: they parse arguments and call the other packages."""
