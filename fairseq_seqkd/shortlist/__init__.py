"""Vocabulary maps: the target symbols that are likely for each source symbol."""
