"""Compares checkpoints: translation quality, decoding speed and size, side by side."""
