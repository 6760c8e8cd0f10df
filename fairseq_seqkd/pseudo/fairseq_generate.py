"""``fairseq-generate --pseudo-targets DIR`` fills a store, and prints its output from it.

`StoreGenerationMixin` adds this to a translation task; `StoreGenerationConfig` has its flags.
"""

import dataclasses
import functools
import logging
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import II

from fairseq_seqkd.chunked.folder import is_damaged
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.models.language_tokens import is_multilingual
from fairseq_seqkd.models.loading import task_name_of
from fairseq_seqkd.pseudo.build_databin import build_databin
from fairseq_seqkd.pseudo.generate import (
    open_store,
    translate,
    translate_remaining,
    wait_for_chunks,
)
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.pseudo.selectors import Best
from fairseq_seqkd.pseudo.store import read_nbest
from fairseq_seqkd.pseudo.target_spec import TargetSpec
from fairseq_seqkd.pseudo.unfinished import (
    TooManyUnfinished,
    check_accepted,
    check_unfinished,
)
from fairseq_seqkd.registry import flag
from fairseq_seqkd.teacher import Teacher

logger = logging.getLogger(__name__)


@dataclass
class StoreGenerationConfig(FairseqDataclass):
    """The flags with which fairseq-generate fills a store."""

    pseudo_targets: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder of the store with the teacher's translations of the training "
            "set; a missing one is made with --teacher-path. DATA1:DATA2 take STORE1:STORE2. "
            "'online' lets the teacher translate every batch in the training step"
        },
    )
    accept_unfinished: Optional[float] = field(
        default=None,
        metadata={
            "help": "train although the teacher finished no hypothesis for as many sentences, "
            "a fraction such as 0.3 (default: 0.2)"
        },
    )
    seed: int = II("common.seed")
    # Not called ``path``: fairseq-validate puts that into every configuration.
    generates_with: Optional[str] = II("common_eval.path")
    gen_subset: str = II("dataset.gen_subset")
    max_tokens: Optional[int] = II("dataset.max_tokens")


class StoreGenerationMixin:
    """Lets fairseq-generate fill a store, and then read the hypotheses from it.

    The task has a method ``pair_split(name)``, which returns a `PairSplit`, and a property
    ``worker``.
    """

    stored_hypotheses = None

    def build_generator(self, models, args, *others, **options):
        generator = super().build_generator(models, args, *others, **options)
        # fairseq-generate passes all of its options; --eval-bleu and `Teacher` pass a few.
        is_generate = self.cfg.generates_with is not None and hasattr(args, "sampling_topk")
        if is_generate and self.cfg.pseudo_targets is not None:
            self.stored_hypotheses = fill_store(
                self.cfg.pseudo_targets,
                self.pair_split(self.cfg.gen_subset),
                models,
                self,
                self.cfg.generates_with,
                args,
                self.cfg.max_tokens,
                self.cfg.seed,
                self.worker,
                self.cfg.accept_unfinished,
            )
        return generator

    def inference_step(self, generator, models, sample, *others, **options):
        if self.stored_hypotheses is not None:
            return self.stored_hypotheses(sample["id"].cpu())
        return super().inference_step(generator, models, sample, *others, **options)


_SEARCH = [option.name for option in dataclasses.fields(SearchOptions) if option.name != "seed"]
# Options that change neither the hypotheses nor their scores.
_HARMLESS = {"sacrebleu", "no_seed_provided", "no_beamable_mm", "print_step"}


def check_generation(args):
    """Refuse generation options that a store's manifest does not have.

    Args:
        args: fairseq's GenerationConfig
    Raises:
        ValueError: names the flags
    """
    unsupported = [
        flag(option.name)
        for option in dataclasses.fields(GenerationConfig)
        if option.name not in {*_SEARCH, *_HARMLESS}
        and getattr(args, option.name, option.default) != option.default
    ]
    if unsupported:
        raise ValueError(
            f"--pseudo-targets with {', '.join(unsupported)}: a store supports only "
            f"{', '.join(map(flag, _SEARCH))}. Leave the others out; or run without "
            "--pseudo-targets and import the output with fairseq-seqkd import."
        )


def check_task(path):
    """Refuse models that fairseq-generate was told to run with another task than their own.

    Args:
        path: their checkpoints
    Raises:
        ValueError: they were trained with a task that adds language tokens
    """
    name = task_name_of(path)
    if is_multilingual(name):
        raise ValueError(
            f"--path is {path!r}, which was trained with --task {name}: --task "
            "translation_seqkd would decode it without its language tokens. fairseq-seqkd "
            "generate adds them."
        )


def fill_store(
    root, split, models, task, path, args, max_tokens, seed, worker, accept_unfinished=None
):
    """Fill a store with models that fairseq-generate has loaded.

    Args:
        root: the store's folder
        split: `PairSplit`
        models, task, path: the teacher's models, their task and their checkpoints
        args: fairseq's GenerationConfig
        max_tokens: source tokens of a batch; None takes the default
        seed: of the samples
        worker: `Worker` of this process
        accept_unfinished: as for `check_unfinished`; if the first process finds more, it ends
            with exit status 3
    Returns:
        `StoredHypotheses`
    """
    check_generation(args)
    check_accepted(accept_unfinished)
    check_task(path)
    spec = TargetSpec(Best())
    recipe = _recipe(models, task, path, args, max_tokens, seed)
    store = open_store(root, split, spec, recipe)
    translate(store, split, recipe, worker)
    wait_for_chunks(store, split)
    if worker.rank == 0:
        translate_remaining(store, split, recipe)
        databin = build_databin(store, split, spec)
        try:
            check_unfinished(databin, accept_unfinished)
        except TooManyUnfinished as error:
            logger.error("%s", error)
            raise SystemExit(error.exit_status) from error
    return StoredHypotheses(store, split)


def _recipe(models, task, path, args, max_tokens, seed):
    teacher = Teacher(models, task, path=path)
    dtype = next(models[0].parameters()).dtype
    return Recipe(
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


class StoredHypotheses:
    """Returns the hypotheses of a store in the form of fairseq's SequenceGenerator.

    Args:
        store: `PseudoTargetStore` with all its chunks
        split: `PairSplit`
    """

    def __init__(self, store, split):
        self.paths = store.chunks.find()
        self.chunk_of = np.zeros(len(split), dtype=np.int32)
        for index, ids in enumerate(store.plan(split.dataset.src_sizes)):
            self.chunk_of[ids] = index
        self.eos = split.dataset.tgt_dict.eos()
        # Sentences of a batch are of similar length, as in chunks; many chunks may have the
        # same length.
        self._load_chunk = functools.lru_cache(maxsize=64)(self._load_chunk)

    def _load_chunk(self, index):
        path = self.paths[index]
        if is_damaged(path):
            raise ValueError(
                f"--pseudo-targets: {path!r} is damaged: it does not have the checksum in its "
                "name. Run the same command again: it makes what is missing or damaged."
            )
        return {sentence.id: sentence for sentence in read_nbest(path)}

    def __call__(self, ids):
        """The hypotheses of each sentence id, a list of lists of dictionaries."""
        chunks = self.chunk_of[ids].tolist()
        return [
            [self._entry(*pair) for pair in self._load_chunk(index)[id_].hypotheses]
            or [self._entry(np.array([self.eos]), -np.inf)]
            for index, id_ in zip(chunks, ids.tolist())
        ]

    def _entry(self, tokens, score):
        return {
            "tokens": torch.from_numpy(tokens.astype(np.int64)),
            "score": score,
            "attention": None,
            "alignment": torch.empty(0),
            "positional_scores": torch.empty(0),  # not in the store
        }
