"""Quality, speed and size of checkpoints, side by side."""
