"""Weights that are set to zero, and stay there."""
