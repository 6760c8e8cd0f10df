"""Resumable work on disk: chunks of sentences, the workers that divide them, and the store."""
