"""Fills a cache: the teacher scores every target of a split, chunk by chunk."""

import logging

import numpy as np
import torch
from fairseq import utils

from fairseq_seqkd.cache.store import SENTENCE, SentenceRows, hash_of, pairs_of, row_of
from fairseq_seqkd.chunked.fill import fill_chunks, missing_chunks
from fairseq_seqkd.chunked.plan import chunk_size
from fairseq_seqkd.io.files import sweep
from fairseq_seqkd.registry import flag

logger = logging.getLogger(__name__)

DEFAULTS = {"top_k": 8, "temperature": 1.0, "dtype": "float32"}
# Tokens of a batch. Small ones stay in a CPU's caches; GPUs want large ones.
MAX_TOKENS = {"cpu": 2048, "cuda": 4096}


def open_cache(cache, split, teacher_sums, settings, device):
    """Check a cache that is there, or begin one.

    Args:
        cache: `DistributionCache`
        split: `Split`
        teacher_sums: the SHA-256 of the teacher's checkpoints
        settings: values for the names in ``DEFAULTS`` and ``max_tokens``; None takes what the
            cache has, for a new one the default
        device: torch.device of the teacher
    Raises:
        ValueError: the cache was made from something else or otherwise, or a number means
            nothing
    """
    vocab = len(split.task.target_dictionary)
    check_settings(settings, vocab)
    asked = {**split.describe(), "teacher": teacher_sums, **settings}
    if cache.exists:
        cache.check(asked)
        return
    given = {name: value for name, value in settings.items() if value is not None}
    defaults = {**DEFAULTS, "max_tokens": MAX_TOKENS[device.type]}
    size = {"chunk_size": chunk_size(len(split)), "vocabulary": vocab}
    cache.create({**asked, **defaults, **given, **size})


def check_settings(settings, vocab):
    """Refuse numbers that mean nothing."""
    for name, is_valid, expected in (
        ("top_k", lambda x: 1 <= x <= vocab, f"from 1 to {vocab}, the teacher's symbols"),
        ("temperature", lambda x: 0 < x <= 1000, "a number above 0, up to 1000"),
        ("max_tokens", lambda x: x >= 1, "1 or more"),
    ):
        value = settings.get(name)
        if value is not None and not is_valid(value):
            raise ValueError(f"{flag(name)} is {value}, expected {expected}")


def fill(cache, split, load_teacher, worker):
    """Score this worker's chunks that are missing or damaged.

    Args:
        cache, split: as for `open_cache`
        load_teacher: called with the name of a dtype if there is something to do
        worker: `Worker`
    Returns:
        how many chunks are left to other workers
    """
    chunks = cache.plan(split.lengths())
    _, mine = missing_chunks(cache, len(chunks), worker)
    if mine:
        teacher = load_teacher(cache.manifest["dtype"])
        teacher.check_dictionaries(split.task)
        fill_chunks(cache, chunks, mine, Scorer(teacher, split, cache.manifest), worker)
    return len(cache.chunks.missing(len(chunks)))


class Scorer:
    """Scores the targets of a split with the teacher, batch by batch.

    Args:
        teacher: `Teacher`
        split: `Split`
        manifest: of the cache
    """

    def __init__(self, teacher, split, manifest):
        self.teacher = teacher
        self.dataset = split.dataset
        self.pad = split.task.target_dictionary.pad()
        self.manifest = manifest
        self.row = row_of(manifest["top_k"], manifest["vocabulary"])
        limits = [model.max_positions() for model in teacher.models]
        self.longest = utils.resolve_max_positions(split.task.max_positions(), *limits)

    def __call__(self, ids):
        """Yield the `SentenceRows` of a chunk's sentences, in any order."""
        fitting, too_long = self.dataset.filter_indices_by_size(np.array(ids), self.longest)
        if len(too_long):
            logger.warning(
                "%d sentences are too long for the teacher and get no rows, such as %d",
                len(too_long),
                too_long[0],
            )
        for id_ in too_long:
            yield SentenceRows(int(id_), 0, np.empty(0, self.row))
        longest = max((self.dataset.num_tokens(id_) for id_ in fitting), default=0)
        if longest > self.manifest["max_tokens"]:
            raise ValueError(
                f"--max-tokens is {self.manifest['max_tokens']}, but a sentence has {longest} "
                "tokens: expected as many or more. Begin anew with --overwrite."
            )
        limit = {"max_tokens": self.manifest["max_tokens"], "required_batch_size_multiple": 1}
        for batch in self.dataset.batch_by_size(np.array(fitting, dtype=np.int64), **limit):
            yield from self.score(batch)

    def score(self, ids):
        """Yield the `SentenceRows` of the sentences of one batch."""
        sample = self.dataset.collater([self.dataset[id_] for id_ in ids])
        net_input = utils.apply_to_sample(
            lambda tensor: tensor.to(self.teacher.device), sample["net_input"]
        )
        target_mask = sample["target"].ne(self.pad)
        rows = self.rows_of(net_input, target_mask, ids[0])
        ends = target_mask.sum(-1).cumsum(0).tolist()
        pairs = pairs_of(sample, self.pad)
        for (id_, source, target), begin, end in zip(pairs, [0, *ends], ends):
            yield SentenceRows(id_, hash_of(source, target), rows[begin:end])

    def rows_of(self, net_input, target_mask, id_):
        """(target positions,) rows of a batch; the error names the sentence ``id_``."""
        k, temperature = self.manifest["top_k"], self.manifest["temperature"]
        top = self.teacher.scores(net_input).at(target_mask.flatten()).top_k(k, temperature)
        if top.tail_lprobs.isnan().any():
            raise ValueError(
                f"the teacher {self.teacher.path!r} has no probabilities (NaN) for sentence "
                f"{id_} or one like it: its training has diverged. Take another checkpoint."
            )
        rows = np.empty(len(top.symbols), self.row)
        rows["symbols"] = top.symbols.cpu().numpy()
        rows["lprobs"] = top.lprobs.cpu().to(torch.float16).numpy()
        rows["tail_lprobs"] = top.tail_lprobs.cpu().to(torch.float16).numpy()
        return rows


def seal(cache):
    """Say that it is finished; returns what there is to tell of it, as lines to print."""
    with cache.locked() as alone:
        if alone:
            sweep(cache.root)
            sweep(cache.path(cache.FOLDER))
        cache.write_sums()
    tokens, size, rest, empty = 0, 0, 0.0, 0
    for path in cache.chunks.find().values():
        sentences, rows = cache.read_chunk(path)
        tokens += len(rows)
        size += sum(array.nbytes for array in (sentences, rows))
        rest += float(np.exp(rows["tail_lprobs"].astype(np.float64)).sum())
        empty += int((sentences["length"] == 0).sum())
    lines = [
        f"{cache.root}: {tokens} target tokens, {size / max(tokens, 1):.1f} bytes a token, "
        f"{size / 1e6:.1f} MB",
        f"  mean mass beside the top {cache.manifest['top_k']}: {rest / max(tokens, 1):.4f}",
    ]
    if empty:
        lines.append(f"  {empty} sentences are too long for the teacher and have no rows")
    return lines


def estimate(cache, split):
    """What size the cache will reach, as a line to print."""
    manifest = cache.manifest
    row = row_of(manifest["top_k"], manifest["vocabulary"]).itemsize
    tokens = split.target_tokens()
    size = tokens * row + len(split) * SENTENCE.itemsize
    return (
        f"{cache.root}: {tokens} target tokens will take {size / 1e6:.1f} MB, "
        f"{size / max(tokens, 1):.1f} bytes a token"
    )
