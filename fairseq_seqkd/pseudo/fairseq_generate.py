"""``fairseq-generate --pseudo-targets DIR`` fills a store, and prints its usual output from it.

A task becomes able to do so by `StoreGenerationMixin`, whose flags are `StoreGenerationConfig`.
"""

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import II

from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.pseudo.build_databin import build_databin
from fairseq_seqkd.pseudo.generate import (
    Recipe,
    complete,
    open_store,
    translate,
    wait_for_chunks,
)
from fairseq_seqkd.pseudo.selectors import Best
from fairseq_seqkd.pseudo.store import read_nbest
from fairseq_seqkd.pseudo.target_spec import TargetSpec
from fairseq_seqkd.registry import flag
from fairseq_seqkd.teacher import Teacher


@dataclass
class StoreGenerationConfig(FairseqDataclass):
    """The flags by which fairseq-generate fills a store."""

    pseudo_targets: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder of the store with the teacher's translations of the training "
            "set; made with --teacher-path if it is not there. 'online' lets the teacher "
            "translate every batch inside the training step"
        },
    )
    seed: int = II("common.seed")
    # Under another name than ``path``, which fairseq-validate puts into every configuration.
    generates_with: Optional[str] = II("common_eval.path")
    gen_subset: str = II("dataset.gen_subset")
    max_tokens: Optional[int] = II("dataset.max_tokens")


class StoreGenerationMixin:
    """Lets a translation task's generator fill a store, and then read from it.

    The task has ``plain_split(name)``, which gives a `PairSplit`, and ``worker``.
    """

    stored = None

    def build_generator(self, models, args, *others, **options):
        generator = super().build_generator(models, args, *others, **options)
        # fairseq-generate gives all of its options; --eval-bleu and a Teacher give a few.
        is_generate = self.cfg.generates_with is not None and hasattr(args, "sampling_topk")
        if is_generate and self.cfg.pseudo_targets is not None:
            self.stored = fill_store(
                self.cfg.pseudo_targets,
                self.plain_split(self.cfg.gen_subset),
                models,
                self,
                self.cfg.generates_with,
                args,
                self.cfg.max_tokens,
                self.cfg.seed,
                self.worker,
            )
        return generator

    def inference_step(self, generator, models, sample, *others, **options):
        if self.stored is not None:
            return self.stored(sample["id"].cpu())
        return super().inference_step(generator, models, sample, *others, **options)


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
        flag(name)
        for name, default in defaults.items()
        if name not in {*_SEARCH, *_HARMLESS} and getattr(args, name, default) != default
    ]
    if unknown:
        raise ValueError(
            f"--pseudo-targets with {', '.join(unknown)}: a store knows of "
            f"{', '.join(map(flag, _SEARCH))} alone. Leave the "
            "others out; or run without --pseudo-targets and take the output with "
            "fairseq-seqkd import."
        )


def fill_store(root, split, models, task, path, args, max_tokens, seed, worker):
    """Fill a store with models that fairseq-generate has loaded.

    Args:
        root: the store's folder
        split: `Split`
        models, task, path: the teacher's, as fairseq-generate has them
        args: fairseq's GenerationConfig
        max_tokens: source tokens of a batch; None takes the default
        seed: of the samples
        worker: `Worker` of this process
    Returns:
        `StoredHypotheses`
    """
    check_generation(args)
    teacher = Teacher(models, task, path=path)
    dtype = next(models[0].parameters()).dtype
    recipe = Recipe(
        teacher_path=path,
        load_teacher=lambda device, dtype: teacher,
        search={name: getattr(args, name) for name in _SEARCH},
        engine={
            "name": "fairseq",
            "compute_type": str(dtype).replace("torch.", ""),
            "max_tokens": max_tokens,
        },
        seed=seed,
        device=teacher.device,
    )
    spec = TargetSpec(Best())
    store = open_store(root, split, spec, recipe)
    translate(store, split, recipe, worker)
    wait_for_chunks(store, split)
    if worker.rank == 0:
        complete(store, split, recipe)
        build_databin(store, split, spec)
    return StoredHypotheses(store, split)


class StoredHypotheses:
    """What a store has, in the form that fairseq's generators return.

    Args:
        store: `PseudoTargetStore`
        split: `Split`
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
