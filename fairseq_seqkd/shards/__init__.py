"""Chunked work on disk: what the chunks are, and files that are whole or not there."""

from fairseq_seqkd.shards.files import (  # noqa: F401
    atomic_directory,
    atomic_file,
    read_json,
    sha256,
    wait_for,
    write_json,
)
from fairseq_seqkd.shards.manifest import differences  # noqa: F401
from fairseq_seqkd.shards.plan import plan_chunks, share  # noqa: F401
