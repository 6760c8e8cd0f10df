"""From n-best lists to one target a sentence, and to a data-bin that students train on.

Memory holds a few numbers a sentence, never its tokens: the lists are read chunk by chunk,
longest sources first, and the chosen tokens go to a nameless file until the data-bin is
written in the order of the split.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fairseq_seqkd.pseudo.databin import write_databin
from fairseq_seqkd.pseudo.filters import FILTERS, faults
from fairseq_seqkd.pseudo.generate import complete, open_store, translate, wait_for_chunks
from fairseq_seqkd.pseudo.store import OUTCOMES, read_nbest
from fairseq_seqkd.shards import Share, naming, progress_bar, read_json, sweep, wait_until

logger = logging.getLogger(__name__)


@dataclass
class Choices:
    """What is known of every sentence's chosen hypothesis, in the order of the split.

    Attributes:
        outcomes: (sentences,) places in ``OUTCOMES``
        scores: (sentences,) the teacher's normalised scores, nats a token
        source_lengths, target_lengths: (sentences,) tokens, with EOS
        copies: (sentences,) whether source and hypothesis are the same symbols
        pairs: (sentences,) hashes of source and hypothesis together
        offsets: (sentences,) where the tokens stand in ``file``
        file: a file without a name, gone with the process
    """

    outcomes: np.ndarray
    scores: np.ndarray
    source_lengths: np.ndarray
    target_lengths: np.ndarray
    copies: np.ndarray
    pairs: np.ndarray
    offsets: np.ndarray
    file: Any

    @classmethod
    def none_yet(cls, source_lengths, folder):
        """Room for every sentence of a split, and a file in ``folder``."""
        sentences = len(source_lengths)
        kinds = (np.int32, bool, np.uint64, np.int64)
        return cls(
            np.zeros(sentences, np.uint8),
            np.full(sentences, -np.inf, np.float32),
            np.asarray(source_lengths),
            *(np.zeros(sentences, kind) for kind in kinds),
            tempfile.TemporaryFile(dir=folder),
        )

    @property
    def translated(self):
        """(sentences,) whether there is a hypothesis at all."""
        return self.outcomes == OUTCOMES.index("translated")

    def add(self, chunk):
        """Take in one chunk, as :class:`ChunkChoices` gives it."""
        ids = chunk["ids"]
        for name in ("outcomes", "scores", "target_lengths", "copies", "pairs"):
            getattr(self, name)[ids] = chunk[name]
        lengths = chunk["target_lengths"].astype(np.int64)
        self.offsets[ids] = self.file.tell() + 4 * (np.cumsum(lengths) - lengths)
        self.file.write(chunk["tokens"].tobytes())

    def tokens(self, id_):
        """(length,) the chosen hypothesis of a sentence."""
        size = 4 * int(self.target_lengths[id_])
        return np.frombuffer(os.pread(self.file.fileno(), size, self.offsets[id_]), np.int32)


class ChunkChoices(torch.utils.data.Dataset):
    """One item a chunk: what its sentences' chosen hypotheses are.

    Args:
        paths: of the chunks
        dataset: the split's LanguagePairDataset
        selector: what chooses, see ``select.py``
    """

    def __init__(self, paths, dataset, selector):
        self.paths = paths
        self.dataset = dataset
        self.selector = selector
        # A source symbol's index among the target's, -1 if it has none.
        indices = dataset.tgt_dict.indices
        self.as_target = np.array([indices.get(s, -1) for s in dataset.src_dict.symbols])

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        chosen = [self._choose(sentence) for sentence in read_nbest(self.paths[index])]
        ids, outcomes, scores, tokens, copies, pairs = zip(*chosen)
        return {
            "ids": np.array(ids),
            "outcomes": np.array([OUTCOMES.index(one) for one in outcomes], np.uint8),
            "scores": np.array(scores, np.float32),
            "target_lengths": np.array([len(one) for one in tokens], np.int32),
            "tokens": np.concatenate(tokens).astype(np.int32),
            "copies": np.array(copies),
            "pairs": np.array(pairs, np.uint64),
        }

    def _choose(self, sentence):
        if not sentence.hypotheses:
            return sentence.id, sentence.outcome, -np.inf, np.zeros(0, np.int32), False, 0
        source = self.dataset.src[sentence.id].numpy()
        gold = self.dataset.tgt[sentence.id] if self.dataset.tgt is not None else None
        tokens, score = sentence.hypotheses[self.selector(sentence.hypotheses, gold)]
        is_copy = np.array_equal(self.as_target[source], tokens)
        pair = hashlib.blake2b(source.tobytes() + tokens.tobytes(), digest_size=8)
        hashed = int.from_bytes(pair.digest(), "little")
        return sentence.id, sentence.outcome, score, tokens, is_copy, hashed


def as_it_is(chunk):
    """What collates chunks; by default torch would make tensors of the arrays."""
    return chunk


def choose(store, split, selector, processes=0):
    """Choose a hypothesis for every sentence; returns :class:`Choices`.

    Args:
        store: :class:`~fairseq_seqkd.pseudo.store.PseudoTargetStore`, all chunks there
        split: :class:`~fairseq_seqkd.pseudo.corpus.Split`
        selector: what chooses, see ``select.py``
        processes: how many share the work, where there is some; 0 is none beside this one
    """
    paths = [path for _, path in sorted(store.chunks.find().items())]
    chunks = torch.utils.data.DataLoader(
        ChunkChoices(paths, split.dataset, selector),
        batch_size=None,
        num_workers=processes if selector.needs_gold and processes > 1 else 0,
        collate_fn=as_it_is,
        generator=torch.Generator(),  # the global one is the student's
    )
    choices = Choices.none_yet(split.dataset.src_sizes, store.root)
    with naming(store.root):
        for chunk in progress_bar(chunks, unit=" chunks", desc=f"choosing {selector.folder}"):
            choices.add(chunk)
        choices.file.flush()
    return choices


def build_databin(store, split, selection, processes=0):
    """The data-bin of a store with all its chunks; made if it is not there.

    Args:
        store, split, processes: as for :func:`choose`
        selection: :class:`~fairseq_seqkd.pseudo.selection.Selection`
    Returns:
        its folder
    Raises:
        ValueError: it is there, with targets chosen otherwise
    """
    databin = store.path(selection.folder)
    with store.locked() as alone:
        if alone:
            sweep(store.root)
            sweep(store.path("nbest"))
        store.write_sums()
        if not os.path.exists(databin):
            choices = choose(store, split, selection.selector, processes)
            write_choices(databin, split, choices, selection)
    selection.check(databin)
    return databin


def write_choices(databin, split, choices, selection):
    """Decide what stands for every sentence, and write it down."""
    fault = faults(choices, selection.filters)
    by_teacher = choices.translated & (fault < 0)
    dropped = (fault >= 0) & selection.drop | ~choices.translated & (not split.has_gold)
    reasons = {
        **{one: choices.outcomes == place for place, one in enumerate(OUTCOMES) if place},
        **{f"filter {one}": fault == place for place, one in enumerate(FILTERS)},
    }

    def count(among):
        counts = {name: int((mask & among).sum()) for name, mask in reasons.items()}
        return {name: number for name, number in counts.items() if number}

    scores = choices.scores[by_teacher].astype(np.float64)
    report = {
        **selection.settings,
        "sentences": {
            "teacher": int(by_teacher.sum()),
            "gold": count(~by_teacher & ~dropped),
            "dropped": count(dropped),
        },
        "mean_score": float(scores.mean())
        if np.isfinite(scores).all() and len(scores)
        else None,
    }

    def target_of(id_):
        return choices.tokens(id_) if by_teacher[id_] else split.dataset.tgt[id_].numpy()

    # Where nothing can be locked, another process may have been quicker.
    with contextlib.suppress(FileExistsError):
        write_databin(databin, split, np.flatnonzero(~dropped), target_of, report)


def summary(databin):
    """What a data-bin holds, as lines to print."""
    report = read_json(os.path.join(databin, "selection.json"))
    counts = report["sentences"]
    lines = [f"{databin}: {counts['teacher']} sentences translated by the teacher"]
    for action, kind in (("keep their gold target", "gold"), ("are dropped", "dropped")):
        for reason, count in sorted(counts[kind].items()):
            lines.append(f"  {count} sentences {action}: {reason}")
    if report["mean_score"] is not None:
        lines.append(f"  mean score {report['mean_score']:.3f} nats a token")
    return lines


def prepare_databin(root, split, selection, recipe, share=None, processes=0):
    """The data-bin that a training wants; whatever is missing of it is made first.

    Args:
        root: the store's folder
        split: :class:`~fairseq_seqkd.pseudo.corpus.Split`
        selection: :class:`~fairseq_seqkd.pseudo.selection.Selection`
        recipe: :class:`~fairseq_seqkd.pseudo.generate.Recipe`
        share: :class:`~fairseq_seqkd.shards.Share` of this process among those that train
            together; all of them return when the first has built the data-bin
        processes: how many choose, see :func:`choose`
    Returns:
        the data-bin's folder
    Raises:
        FileNotFoundError, ValueError: see :func:`~fairseq_seqkd.pseudo.generate.open_store`
            and :func:`build_databin`
    """
    share = share or Share()
    store = open_store(root, split, selection, recipe)
    databin = store.path(selection.folder)
    if not os.path.exists(databin):
        translate(store, split, recipe, share)
        if share.rank == 0:
            wait_for_chunks(store, split)
            complete(store, split, recipe)
            for line in summary(build_databin(store, split, selection, processes)):
                logger.info(line)
        wait_until(lambda: os.path.exists(databin), f"rank 0, which builds {databin!r}")
    selection.check(databin, exactly=False)
    return databin
