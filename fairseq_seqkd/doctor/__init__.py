"""Examines an installation and checkpoints: `installation` looks, `diagnosis` judges."""
