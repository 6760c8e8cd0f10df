"""Atomic files, locks, text readers and progress bars."""
