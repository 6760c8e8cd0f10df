"""``fairseq-generate`` fills a store, and prints out of it what it always prints."""

import dataclasses
import functools

import numpy as np
import torch
from fairseq.dataclass.configs import GenerationConfig

from fairseq_seqkd.pseudo.choose import build_databin
from fairseq_seqkd.pseudo.generate import (
    Recipe,
    complete,
    open_store,
    translate,
    wait_for_chunks,
)
from fairseq_seqkd.pseudo.select import Best
from fairseq_seqkd.pseudo.selection import Selection
from fairseq_seqkd.pseudo.store import read_nbest
from fairseq_seqkd.search import SearchOptions
from fairseq_seqkd.teacher import Teacher

_SEARCH = [one.name for one in dataclasses.fields(SearchOptions) if one.name != "seed"]
# These change neither the hypotheses nor their scores.
_HARMLESS = {"sacrebleu", "no_seed_provided", "no_beamable_mm", "print_step"}


def check_generation(args):
    """Refuse what a store does not know of.

    Args:
        args: fairseq's GenerationConfig
    Raises:
        ValueError: names the flags
    """
    defaults = {one.name: one.default for one in dataclasses.fields(GenerationConfig)}
    unknown = [
        f"--{name.replace('_', '-')}"
        for name, default in defaults.items()
        if name not in {*_SEARCH, *_HARMLESS} and getattr(args, name, default) != default
    ]
    if unknown:
        raise ValueError(
            f"--pseudo-targets with {', '.join(unknown)}: a store knows of "
            f"{', '.join('--' + name.replace('_', '-') for name in _SEARCH)} alone. Leave the "
            "others out; or run without --pseudo-targets and take the output with "
            "fairseq-seqkd import."
        )


def fill_store(root, split, models, task, path, args, max_tokens, seed, share):
    """Fill a store with models that fairseq-generate has loaded.

    Args:
        root: the store's folder
        split: :class:`~fairseq_seqkd.pseudo.corpus.Split`
        models, task, path: the teacher's, as fairseq-generate has them
        args: fairseq's GenerationConfig
        max_tokens: source tokens of a batch; None takes the default
        seed: of the samples
        share: :class:`~fairseq_seqkd.shards.Share` of this process
    Returns:
        :class:`StoredHypotheses`
    """
    check_generation(args)
    teacher = Teacher(models, task, path=path)
    dtype = next(models[0].parameters()).dtype
    recipe = Recipe(
        teacher_path=path,
        load_teacher=lambda device, dtype: teacher,
        search={name: getattr(args, name) for name in _SEARCH},
        backend={
            "name": "fairseq",
            "compute_type": str(dtype).replace("torch.", ""),
            "max_tokens": max_tokens,
        },
        seed=seed,
        device=teacher.device,
    )
    selection = Selection(Best())
    store = open_store(root, split, selection, recipe)
    translate(store, split, recipe, share)
    wait_for_chunks(store, split)
    if share.rank == 0:
        complete(store, split, recipe)
        build_databin(store, split, selection)
    return StoredHypotheses(store, split)


class StoredHypotheses:
    """What a store has, in the form that fairseq's generators return.

    Args:
        store: :class:`~fairseq_seqkd.pseudo.store.PseudoTargetStore`
        split: :class:`~fairseq_seqkd.pseudo.corpus.Split`
    """

    def __init__(self, store, split):
        self.paths = store.chunks.find()
        self.chunk_of = np.zeros(len(split), dtype=np.int32)
        for index, ids in enumerate(store.plan(split.dataset.src_sizes)):
            self.chunk_of[ids] = index
        self.eos = split.dataset.tgt_dict.eos()
        # Batches have sentences of similar length, as chunks have; of one length there
        # may be many chunks.
        self._read = functools.lru_cache(maxsize=64)(self._read)

    def _read(self, index):
        return {sentence.id: sentence for sentence in read_nbest(self.paths[index])}

    def __call__(self, ids):
        """For each id its hypotheses, as SequenceGenerator gives them: a list of lists."""
        chunks = self.chunk_of[ids].tolist()
        return [
            [self._entry(*pair) for pair in self._read(index)[id_].hypotheses]
            or [self._entry(np.array([self.eos]), -np.inf)]
            for index, id_ in zip(chunks, ids.tolist())
        ]

    def _entry(self, tokens, score):
        return {
            "tokens": torch.from_numpy(tokens.astype(np.int64)),
            "score": score,
            "attention": None,
            "alignment": torch.empty(0),
            "positional_scores": torch.empty(0),  # a store does not have them
        }
