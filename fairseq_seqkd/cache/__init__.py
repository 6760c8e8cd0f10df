"""The teacher's most probable symbols at every target position of a split, on disk."""
