"""Pseudo-targets: the teacher's translations of a split, kept on disk."""
