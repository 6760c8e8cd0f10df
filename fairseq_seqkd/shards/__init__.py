"""Chunked work on disk: what the chunks are, and files that are whole or not there."""

from fairseq_seqkd.shards.chunks import ChunkFolder  # noqa: F401
from fairseq_seqkd.shards.files import (  # noqa: F401
    atomic_directory,
    atomic_file,
    locked,
    naming,
    read_json,
    sha256,
    sweep,
    wait_until,
    write_json,
)
from fairseq_seqkd.shards.manifest import differences  # noqa: F401
from fairseq_seqkd.shards.plan import chunk_size, plan_chunks  # noqa: F401
from fairseq_seqkd.shards.processes import Share, this_share  # noqa: F401
from fairseq_seqkd.shards.progress import progress_bar  # noqa: F401
from fairseq_seqkd.shards.store import ChunkedStore  # noqa: F401
