"""Pseudo-targets: a store of the teacher's translations of a split, and data-bins from it."""
