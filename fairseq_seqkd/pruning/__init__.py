"""Magnitude pruning: schemes, schedules, a training hook, and pruning of checkpoint files."""
