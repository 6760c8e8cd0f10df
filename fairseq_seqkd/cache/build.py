"""Fills a cache: the teacher scores every target of a split, chunk by chunk."""

import logging

import numpy as np
import torch
from fairseq import utils

from fairseq_seqkd.cache.repeats import first_equal_pairs, scored_ids, write_repeats
from fairseq_seqkd.cache.store import SENTENCE, SentenceTopK, hash_of, pairs_of, record_dtype
from fairseq_seqkd.chunked.fill import fill_chunks, missing_chunks
from fairseq_seqkd.chunked.plan import chunk_size
from fairseq_seqkd.losses.blockwise_sum import TargetPositions
from fairseq_seqkd.registry import flag
from fairseq_seqkd.teacher import SOURCE_ENTRY

logger = logging.getLogger(__name__)

DEFAULTS = {"top_k": 8, "temperature": 1.0, "dtype": "float32"}
# Tokens of a batch. Small batches stay in a CPU's caches; GPUs need large ones.
MAX_TOKENS = {"cpu": 2048, "cuda": 4096}


def open_cache(cache, split, teacher_sha256, settings, device):
    """Check an existing cache, or create a new one.

    Args:
        cache: `DistributionCache`
        split: `Split`
        teacher_sha256: the SHA-256 of the teacher's checkpoints
        settings: values for the names in ``DEFAULTS`` and ``max_tokens``; None means the
            setting of an existing cache, or the default for a new one
        device: the teacher's torch.device
    Raises:
        ValueError: the cache was made from other data or with other settings, or a setting
            is out of range
    """
    vocab = len(split.task.target_dictionary)
    check_settings(settings, vocab)
    expected = {**split.describe(), "teacher": teacher_sha256, **settings}
    if cache.exists:
        cache.check(expected, exact=[SOURCE_ENTRY])
        return
    given = {name: value for name, value in settings.items() if value is not None}
    defaults = {**DEFAULTS, "max_tokens": MAX_TOKENS[device.type]}
    size = {"chunk_size": chunk_size(len(split)), "vocabulary": vocab}
    cache.create({**expected, **defaults, **given, **size, **_repeats(cache, split)})


def _repeats(cache, split):
    """Store which pairs are repeated, if some are; returns the manifest's entries."""
    first = first_equal_pairs(split.dataset, split.student_sources)
    return write_repeats(cache, first) if (first != np.arange(len(first))).any() else {}


def check_settings(settings, vocab):
    """Raise a ValueError for a setting that is out of range."""
    for name, is_valid, expected in (
        ("top_k", lambda x: 1 <= x <= vocab, f"from 1 to {vocab}, the teacher's symbols"),
        ("temperature", lambda x: 0 < x <= 1000, "a number above 0, up to 1000"),
        ("max_tokens", lambda x: x >= 1, "1 or more"),
    ):
        value = settings.get(name)
        if value is not None and not is_valid(value):
            raise ValueError(f"{flag(name)} is {value}, expected {expected}")


def fill(cache, split, load_teacher, worker):
    """Score the missing and damaged chunks of this worker.

    Args:
        cache, split: as for `open_cache`
        load_teacher: called with the name of a dtype if there is something to score
        worker: `Worker`
    Returns:
        how many chunks are still missing, which other workers have to score
    """
    chunks = chunks_of(cache, split)
    _, mine = missing_chunks(cache, len(chunks), worker)
    if mine:
        teacher = load_teacher(cache.manifest["dtype"])
        teacher.check_dictionaries(split.task)
        scorer = Scorer(teacher, split, cache.manifest)
        fill_chunks(cache, chunks, mine, scorer, worker, split.token_counts())
    return cache.n_missing(len(chunks), worker)


def chunks_of(cache, split):
    """The ids of the scored sentences of every chunk of a cache."""
    scored = scored_ids(cache, len(split))
    return [scored[ids] for ids in cache.plan(split.length_sort_keys()[scored])]


class Scorer:
    """Scores the targets of a split with the teacher, batch by batch.

    Args:
        teacher: `Teacher`
        split: `Split`
        manifest: the cache's manifest
    """

    def __init__(self, teacher, split, manifest):
        self.teacher = teacher
        self.dataset, self.student_sources = split.dataset, split.student_sources
        self.pad = split.task.target_dictionary.pad()
        self.manifest = manifest
        self.dtype = record_dtype(manifest["top_k"], manifest["vocabulary"])
        limits = [model.max_positions() for model in teacher.models]
        self.longest = utils.resolve_max_positions(split.max_positions(), *limits)

    def __call__(self, ids):
        """Yield the `SentenceTopK` of a chunk's sentences, in any order."""
        fitting, too_long = self.dataset.filter_indices_by_size(np.array(ids), self.longest)
        if len(too_long):
            logger.warning(
                "%d sentences are too long for the teacher and get no rows, such as %d",
                len(too_long),
                too_long[0],
            )
        for id_ in too_long:
            sample = self.dataset.collater([self.dataset[id_]])
            ((_, hash_),) = self.hashes_of(sample)
            yield SentenceTopK(int(id_), hash_, np.empty(0, self.dtype))
        for batch in self.batches(np.array(fitting, dtype=np.int64)):
            yield from self.score(batch)

    def batches(self, ids):
        """Divide sentences into batches of at most ``max_tokens`` tokens.

        Raises:
            ValueError: a sentence alone has more
        """
        limit = self.manifest["max_tokens"]
        longest = max((self.dataset.num_tokens(id_) for id_ in ids), default=0)
        if longest > limit:
            raise ValueError(
                f"--max-tokens is {limit}, but a sentence has {longest} tokens: expected as "
                "many or more. Start again with --overwrite."
            )
        return self.dataset.batch_by_size(ids, max_tokens=limit, required_batch_size_multiple=1)

    def score(self, ids):
        """Yield the `SentenceTopK` of the sentences of one batch."""
        sample = self.dataset.collater([self.dataset[id_] for id_ in ids])
        net_input = utils.apply_to_sample(
            lambda tensor: tensor.to(self.teacher.device), sample["net_input"]
        )
        target_mask = sample["target"].ne(self.pad)
        rows, lprobs = self.records_of(net_input, sample["target"], target_mask, ids[0])
        ends = target_mask.sum(-1).cumsum(0).tolist()
        for (id_, hash_), begin, end in zip(self.hashes_of(sample), [0, *ends], ends):
            yield SentenceTopK(id_, hash_, rows[begin:end], lprobs[begin:end].mean())

    def hashes_of(self, sample):
        """Yield (id, hash of the student's source and target) of each sentence of a batch."""
        for id_, source, target in pairs_of(sample, self.pad):
            if self.student_sources is not None:
                source = self.student_sources[id_].numpy()
            yield id_, hash_of(source, target)

    def records_of(self, net_input, target, target_mask, id_):
        """The teacher's top k at the target positions of a batch, and its scores of them.

        Args:
            net_input: the arguments of the model's forward
            target: (batch, length) symbols
            target_mask: (batch, length) True at target tokens, False at padding
            id_: the sentence to name in the error
        Returns:
            (target positions,) rows of the dtype `record_dtype`, and (target positions,)
            log-probabilities of the targets, at temperature 1
        Raises:
            ValueError: the teacher's probabilities are NaN
        """
        k, temperature = self.manifest["top_k"], self.manifest["temperature"]
        targets = target[target_mask].to(self.teacher.device)
        logits = self.teacher.logits(net_input).select(TargetPositions(target_mask).index)
        top, target_lprobs = logits.top_k_and_targets(k, temperature, targets)
        if top.tail_lprobs.isnan().any():
            raise ValueError(
                f"the teacher {self.teacher.path!r} has no probabilities (NaN) for sentence "
                f"{id_} or one like it: its training has diverged. Use another checkpoint."
            )
        rows = np.empty(len(top.symbols), self.dtype)
        rows["symbols"] = top.symbols.cpu().numpy()
        rows["lprobs"] = top.lprobs.cpu().to(torch.float16).numpy()
        rows["tail_lprobs"] = top.tail_lprobs.cpu().to(torch.float16).numpy()
        return rows, target_lprobs.cpu().numpy()


def seal(cache):
    """Store the checksums of a finished cache; returns its summary, as lines to print."""
    with cache.sealed():
        return _summary(cache)


def _summary(cache):
    tokens, size, tail_mass, empty, scores = 0, 0, 0.0, 0, []
    for path in cache.chunks.find().values():
        sentences, rows = cache.read_chunk(path)
        tokens += len(rows)
        size += sentences.nbytes + rows.nbytes
        tail_mass += float(np.exp(rows["tail_lprobs"].astype(np.float64)).sum())
        has_rows = sentences["length"] > 0
        empty += int((~has_rows).sum())
        scores.append(sentences["score"][has_rows])
    n_positions = max(tokens, 1)
    lines = [
        f"{cache.root}: {tokens} target tokens, {size / n_positions:.1f} bytes per token, "
        f"{size / 1e6:.1f} MB",
        f"  mean mass outside the top {cache.manifest['top_k']}: {tail_mass / n_positions:.4f}",
        f"  mean score of the targets: {mean_score(np.concatenate(scores)):.3f} nats per token",
    ]
    if empty:
        lines.append(f"  {empty} sentences are too long for the teacher and have no rows")
    return lines


def mean_score(scores):
    """The mean of sentences' scores, in nats per token; 0 of none."""
    return float(scores.mean(dtype=np.float64)) if len(scores) else 0.0


def estimate(cache, split):
    """Estimate the size of the finished cache, as a line to print."""
    manifest = cache.manifest
    row_bytes = record_dtype(manifest["top_k"], manifest["vocabulary"]).itemsize
    scored = scored_ids(cache, len(split))
    tokens = split.target_tokens(scored)
    size = tokens * row_bytes + len(scored) * SENTENCE.itemsize
    line = (
        f"{cache.root}: {tokens} target tokens will take {size / 1e6:.1f} MB, "
        f"{size / max(tokens, 1):.1f} bytes per token"
    )
    if len(scored) < len(split):
        line += f"\n  {len(scored)} of {len(split)} pairs differ: each is scored once"
    return line
