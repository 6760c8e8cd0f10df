"""Long work on disk: a plan of chunks, workers that share them, and a store that is filled."""
