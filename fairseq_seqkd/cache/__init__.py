"""The teacher's top-k distributions at every target position of a split, on disk."""
