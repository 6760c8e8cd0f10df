"""Fills a cache: the teacher scores every target of a split, chunk by chunk."""

import logging

import numpy as np
import torch
from fairseq import utils

from fairseq_seqkd.cache.store import SENTENCE, hash_of, pairs_of, row_of
from fairseq_seqkd.shards import chunk_size, progress_bar, sweep

logger = logging.getLogger(__name__)

DEFAULTS = {"top_k": 8, "temperature": 1.0, "dtype": "float32"}
# Tokens of a batch. Small ones stay in a CPU's caches; GPUs want large ones.
MAX_TOKENS = {"cpu": 2048, "cuda": 4096}


def open_cache(cache, targets, teacher_sums, settings, device):
    """Check a cache that is there, or begin one.

    Args:
        cache: :class:`~fairseq_seqkd.cache.store.DistributionCache`
        targets: :class:`~fairseq_seqkd.cache.corpus.Targets`
        teacher_sums: the SHA-256 of the teacher's checkpoints
        settings: values for the names in ``DEFAULTS`` and ``max_tokens``; None takes what the
            cache has, for a new one the default
        device: torch.device of the teacher
    Raises:
        ValueError: the cache was made from something else or otherwise, or a number means
            nothing
    """
    vocab = len(targets.task.target_dictionary)
    check_settings(settings, vocab)
    asked = {**targets.describe(), "teacher": teacher_sums, **settings}
    if cache.exists:
        cache.check(asked)
        return
    given = {name: value for name, value in settings.items() if value is not None}
    defaults = {**DEFAULTS, "max_tokens": MAX_TOKENS[device.type]}
    size = {"chunk_size": chunk_size(len(targets)), "vocabulary": vocab}
    cache.create({**asked, **defaults, **given, **size})


def check_settings(settings, vocab):
    """Refuse numbers that mean nothing."""
    for name, holds, expected in (
        ("top_k", lambda x: 1 <= x <= vocab, f"from 1 to {vocab}, the teacher's symbols"),
        ("temperature", lambda x: 0 < x <= 1000, "a number above 0, up to 1000"),
        ("max_tokens", lambda x: x >= 1, "1 or more"),
    ):
        value = settings.get(name)
        if value is not None and not holds(value):
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} is {value}, expected {expected}")


def fill(cache, targets, load_teacher, share):
    """Score this process's chunks that are not there, or no longer whole.

    Args:
        cache, targets: as for :func:`open_cache`
        load_teacher: called with the name of a dtype if there is something to do
        share: :class:`~fairseq_seqkd.shards.Share`
    Returns:
        how many chunks are left to other processes
    """
    manifest = cache.manifest
    chunks = cache.plan(targets.lengths())
    missing = cache.missing(len(chunks), share.of(len(chunks)))
    mine = [index for index in missing if index in share.of(len(chunks))]
    if mine:
        teacher = load_teacher(manifest["dtype"])
        teacher.check_dictionaries(targets.task)
        scorer = Scorer(teacher, targets, manifest)
        sentences = sum(len(chunks[index]) for index in mine)
        hidden = share.rank != 0
        with progress_bar(total=sentences, unit=" sentences", disable=hidden) as progress:
            for index in mine:
                cache.write_chunk(index, *scorer(chunks[index], progress))
    return len(cache.chunks.missing(len(chunks)))


class Scorer:
    """Scores chunks of a split.

    Args:
        teacher: :class:`~fairseq_seqkd.teacher.Teacher`
        targets: :class:`~fairseq_seqkd.cache.corpus.Targets`
        manifest: of the cache
    """

    def __init__(self, teacher, targets, manifest):
        self.teacher = teacher
        self.dataset = targets.dataset
        self.pad = targets.task.target_dictionary.pad()
        self.manifest = manifest
        self.row = row_of(manifest["top_k"], manifest["vocabulary"])
        limits = [model.max_positions() for model in teacher.models]
        self.longest = utils.resolve_max_positions(targets.task.max_positions(), *limits)

    def __call__(self, ids, progress):
        """A chunk's lines and rows, see :meth:`DistributionCache.write_chunk`."""
        found = {}
        fitting, too_long = self.dataset.filter_indices_by_size(np.array(ids), self.longest)
        if len(too_long):
            logger.warning(
                "%d sentences are too long for the teacher and get no rows, such as %d",
                len(too_long),
                too_long[0],
            )
            progress.update(len(too_long))
        longest = max((self.dataset.num_tokens(id_) for id_ in fitting), default=0)
        if longest > self.manifest["max_tokens"]:
            raise ValueError(
                f"--max-tokens is {self.manifest['max_tokens']}, but a sentence has {longest} "
                "tokens: expected as many or more. Begin anew with --overwrite."
            )
        limit = {"max_tokens": self.manifest["max_tokens"], "required_batch_size_multiple": 1}
        for batch in self.dataset.batch_by_size(np.array(fitting, dtype=np.int64), **limit):
            found.update(self.rows_of(batch))
            progress.update(len(batch))
        nothing = 0, np.empty(0, self.row)
        lines, rows = zip(*(found.get(id_, nothing) for id_ in ids.tolist()))
        lengths = [len(one) for one in rows]
        return np.array(list(zip(ids, lengths, lines)), SENTENCE), np.concatenate(rows)

    def rows_of(self, ids):
        """Yield (id, (hash of source and target, the rows)) for each sentence of a batch."""
        sample = self.dataset.collater([self.dataset[id_] for id_ in ids])
        net_input = utils.apply_to_sample(
            lambda tensor: tensor.to(self.teacher.device), sample["net_input"]
        )
        k, temperature = self.manifest["top_k"], self.manifest["temperature"]
        counts = sample["target"].ne(self.pad)
        top = self.teacher.scores(net_input).at(counts.flatten()).top_k(k, temperature)
        if top.rest.isnan().any():
            raise ValueError(
                f"the teacher {self.teacher.path!r} has no probabilities (NaN) for sentence "
                f"{ids[0]} or one like it: its training has diverged. Take another checkpoint."
            )
        symbols, lprobs, rest = (one.cpu() for one in top)
        rows = np.empty(len(symbols), self.row)
        rows["symbols"] = symbols.numpy()
        rows["lprobs"] = lprobs.to(torch.float16).numpy()
        rows["rest"] = rest.to(torch.float16).numpy()
        ends = counts.sum(-1).cumsum(0).tolist()
        pairs = pairs_of(sample, self.pad)
        for (id_, source, target), begin, end in zip(pairs, [0, *ends], ends):
            yield id_, (hash_of(source, target), rows[begin:end])


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
        rest += float(np.exp(rows["rest"].astype(np.float64)).sum())
        empty += int((sentences["length"] == 0).sum())
    lines = [
        f"{cache.root}: {tokens} target tokens, {size / max(tokens, 1):.1f} bytes a token, "
        f"{size / 1e6:.1f} MB",
        f"  mean mass beside the top {cache.manifest['top_k']}: {rest / max(tokens, 1):.4f}",
    ]
    if empty:
        lines.append(f"  {empty} sentences are too long for the teacher and have no rows")
    return lines


def estimate(cache, targets):
    """What size the cache will reach, as a line to print."""
    manifest = cache.manifest
    row = row_of(manifest["top_k"], manifest["vocabulary"]).itemsize
    tokens = targets.target_tokens()
    size = tokens * row + len(targets) * SENTENCE.itemsize
    return (
        f"{cache.root}: {tokens} target tokens will take {size / 1e6:.1f} MB, "
        f"{size / max(tokens, 1):.1f} bytes a token"
    )
