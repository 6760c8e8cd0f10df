"""The task ``translation_seqkd``: stock ``translation`` with pseudo-targets and pruning.

Only the training split gets pseudo-targets; validation and test sets stay gold.
"""

import contextlib
import functools
import logging
import os
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
import torch
import torch.distributed as dist
from fairseq import utils
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.compat import check_numpy
from fairseq_seqkd.databin import PairSplit
from fairseq_seqkd.models.data_folders import folder_of_each, single_folder
from fairseq_seqkd.models.datasets import random_access
from fairseq_seqkd.models.sides import check_sides
from fairseq_seqkd.pruning.hook import PruningConfig, PruningMixin
from fairseq_seqkd.pseudo.build_databin import prepare_databin
from fairseq_seqkd.pseudo.fairseq_generate import StoreGenerationConfig, StoreGenerationMixin
from fairseq_seqkd.pseudo.generate import new_search
from fairseq_seqkd.pseudo.hypothesis_lists import HypothesisLists
from fairseq_seqkd.pseudo.online import with_pseudo_targets
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.pseudo.selectors import METRICS, build_selector
from fairseq_seqkd.pseudo.target_spec import TargetSpec
from fairseq_seqkd.pseudo.unfinished import check_accepted, check_unfinished
from fairseq_seqkd.tasks.pairs import PairsWithGold
from fairseq_seqkd.tasks.sampled import SampledPairs
from fairseq_seqkd.teacher import (
    TeacherConfig,
    load_sources,
    load_teacher,
    shared_teacher,
    teacher_dtype_of,
)

logger = logging.getLogger(__name__)


@dataclass
class TranslationSeqKDConfig(
    TranslationConfig, TeacherConfig, PruningConfig, StoreGenerationConfig
):
    """The flags of the task: those of ``translation``, the teacher, its search, and pruning."""

    pseudo_metric: Optional[ChoiceEnum(list(METRICS))] = field(
        default=None,
        metadata={
            "help": "the metric by which a hypothesis is the closest to gold (default: bleu), "
            "or most like the others (default: chrf)"
        },
    )
    pseudo_remove_bpe: Optional[str] = field(
        default=None,
        metadata={
            "help": "remove BPE before hypotheses are compared with gold",
            "argparse_const": "@@ ",
        },
    )
    teacher_beam: Optional[int] = field(
        default=None,
        metadata={
            "help": "beam of the teacher's search (default: the store's; for a new store 5, "
            "or 35 for closest and mbr)"
        },
    )
    teacher_nbest: Optional[int] = field(
        default=None,
        metadata={"help": "hypotheses kept per sentence (default: the whole beam)"},
    )
    teacher_lenpen: Optional[float] = field(
        default=None,
        metadata={"help": "length penalty of the teacher's search (default: 1)"},
    )
    teacher_sampling: bool = field(
        default=False,
        metadata={"help": "sample from the teacher instead of a beam search"},
    )
    teacher_sampling_topk: Optional[int] = field(
        default=None, metadata={"help": "sample from the k most probable symbols"}
    )
    teacher_sampling_topp: Optional[float] = field(
        default=None,
        metadata={"help": "sample from the smallest set of symbols with this probability"},
    )
    teacher_engine: ChoiceEnum(["auto", "fairseq", "ctranslate2"]) = field(
        default="auto",
        metadata={
            "help": "the engine that translates for a new store; auto is CTranslate2 if it "
            "is installed and can convert the teacher, else fairseq"
        },
    )
    cpu: bool = II("common.cpu")
    fp16: bool = II("common.fp16")


ONLINE = "online"


@register_task("translation_seqkd", dataclass=TranslationSeqKDConfig)
class TranslationSeqKDTask(PruningMixin, StoreGenerationMixin, TranslationTask):
    """Translation with gold targets or pseudo-targets, whichever the criterion asks for."""

    stock_name = "translation"  # the task in the checkpoint of an exported student

    def __init__(self, cfg, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        self._databins = {}
        self.use_targets("gold")

    def use_targets(self, targets, with_gold=False, temperature=None):
        """Set the targets of training batches from now on.

        Args:
            targets: ``gold``, or a selector's name (``best``, ``closest``, ``mbr``)
            with_gold: whether batches of pseudo-targets also have the gold targets
            temperature: of ``sampled`` targets; None: 1
        """
        self.targets = targets
        self.with_gold = with_gold
        self.temperature = 1.0 if temperature is None else temperature
        self.selector = None
        if targets != "gold":
            self.selector = build_selector(
                targets,
                self.tgt_dict,
                remove_bpe=self.cfg.pseudo_remove_bpe,
                metric=self.cfg.pseudo_metric and str(self.cfg.pseudo_metric),
            )

    def build_criterion(self, cfg, *args, **kwargs):
        criterion = super().build_criterion(cfg, *args, **kwargs)
        # A stock criterion trains on gold.
        self.use_targets(
            getattr(criterion, "kd_targets", "gold"),
            with_gold=getattr(criterion, "needs_gold", False),
            temperature=getattr(cfg, "sampled_temperature", None),
        )
        return criterion

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """Load a split; the training split with the targets of `use_targets`.

        Raises:
            FileNotFoundError: there is no store, and no teacher to make one with
            ValueError: the store was made from other data or with other settings, or
                sentence numbers do not identify sentences in this data; or see `check_sides`
                and `check_numpy`
        """
        check_numpy(self)
        for folder in utils.split_paths(self.cfg.data):
            check_sides(folder, split, combine)
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        gold = self.datasets[split] = random_access(self.datasets[split])
        if split != self.cfg.train_subset:
            return
        if not self._replaces_dataset():
            self._check_online(gold)
            return
        databins = self._prepare_databins(split)
        with self._data_in(os.pathsep.join(databins)):
            super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        if self.selector.keeps_lists:
            lists = HypothesisLists(databins[(epoch - 1) % len(databins)])
            how = lists, self.cfg.seed, self.temperature
            self.datasets[split] = SampledPairs(self.datasets[split], *how)
        if self.with_gold:
            self.datasets[split] = self._pairs_with_gold(self.datasets[split], gold)

    def _pairs_with_gold(self, pairs, gold):
        """`PairsWithGold`; logs how many sentences have no gold target."""
        n_gold = 0 if gold.tgt is None else int((np.asarray(gold.tgt_sizes) > 1).sum())
        if gold.tgt is not None and len(pairs) != len(gold):
            raise ValueError(
                f"--gold-weight or --nll-weighting: the data-bin in "
                f"{self.cfg.pseudo_targets!r} has {len(pairs)} of the {len(gold)} sentences, "
                "so that they cannot be matched with gold. Build one without "
                "--filter-action drop."
            )
        if n_gold < len(pairs):
            logger.warning(
                "%d of %d sentences have no gold target: --gold-weight and --nll-weighting "
                "leave them out",
                len(pairs) - n_gold,
                len(pairs),
            )
        return PairsWithGold(pairs, None if gold.tgt is None else gold)

    def _replaces_dataset(self):
        """Whether the training split is loaded from a store."""
        store = self.cfg.pseudo_targets
        if self.targets == "gold":
            if store is not None and self.cfg.generates_with is None:
                logger.warning(
                    "training on gold targets, --pseudo-targets is not used: the criterion "
                    "does not ask for it (see --kd-targets)"
                )
            return False
        if store is None:
            raise ValueError(
                f"training on {self.targets!r} targets needs --pseudo-targets DIR: the "
                "folder of a store, or of one to make with --teacher-path"
            )
        if store == ONLINE and self.selector.needs_store:
            raise ValueError(
                f"--pseudo-targets online with --kd-targets {self.targets}: these targets "
                "need a store. Name its folder, or that of one to make."
            )
        if store == ONLINE and self.cfg.teacher_path is None:
            raise ValueError("--pseudo-targets online needs --teacher-path CHECKPOINT")
        return store != ONLINE

    def _check_online(self, gold):
        """Refuse to translate batches without gold targets in the training step."""
        is_online = self.cfg.pseudo_targets == ONLINE and self.selector is not None
        if is_online and gold.tgt is None:
            raise ValueError(
                f"--pseudo-targets online: the training set in {self.cfg.data!r} has sources "
                "only, and sentences that the teacher cannot translate keep their gold target. "
                "Expected pairs, or the folder of a store, which leaves such sentences out."
            )

    @contextlib.contextmanager
    def _data_in(self, folder):
        saved = self.cfg.data, self.cfg.dataset_impl
        self.cfg.data, self.cfg.dataset_impl = folder, None  # None: inferred from each file
        try:
            yield
        finally:
            self.cfg.data, self.cfg.dataset_impl = saved

    def _prepare_databins(self, split):
        """The data-bins with the targets of `use_targets`, one for each of ``data``.

        All are prepared before the first update: see `prepare_databin`.
        """
        spec = TargetSpec(self.selector, text={"remove_bpe": self.cfg.pseudo_remove_bpe})
        if (split, spec.folder) not in self._databins:
            flag, data = self.cfg.pseudo_targets, self.cfg.data
            stores = folder_of_each(data, flag, "--pseudo-targets")
            check_accepted(self.cfg.accept_unfinished)
            worker, recipe, databins = self.worker, self._recipe(), []
            for store, pairs in zip(stores, self._pair_splits(split)):
                databins.append(
                    prepare_databin(store, pairs, spec, recipe, worker, worker.threads)
                )
                check_unfinished(databins[-1], self.cfg.accept_unfinished)
            self._databins[split, spec.folder] = databins
        return self._databins[split, spec.folder]

    def _recipe(self):
        return Recipe(
            teacher_path=self.cfg.teacher_path,
            load_teacher=self._load_teacher,
            load_sources=self._load_sources() if self.cfg.teacher_source else None,
            search=self._search(),
            engine={"name": str(self.cfg.teacher_engine)},
            engine_flag="--teacher-engine",
            device=self._device,
            threads=min(self.worker.threads, torch.get_num_threads()),
            seed=self.cfg.seed,
            half=self._device.type == "cuda" and self.cfg.fp16,
        )

    def _search(self):
        """The values of `SearchOptions` that the flags give; None if a flag is not given."""
        return {
            "beam": self.cfg.teacher_beam,
            "nbest": self.cfg.teacher_nbest,
            "lenpen": self.cfg.teacher_lenpen,
            "sampling": self.cfg.teacher_sampling or None,
            "sampling_topk": self.cfg.teacher_sampling_topk,
            "sampling_topp": self.cfg.teacher_sampling_topp,
        }

    def pair_split(self, split):
        """Load the `PairSplit` of that name; refuses several data-bins."""
        single_folder(self.cfg.data, split)
        return next(self._pair_splits(split))

    def _pair_splits(self, split):
        """Yield the `PairSplit` of every data-bin in ``data``; see `PairSplit.load_shards`."""
        if self.cfg.load_alignments:
            raise ValueError(
                "--load-alignments: the alignments are those of gold targets and would not "
                "fit pseudo-targets. Leave the flag out."
            )
        how = self.cfg.source_lang, self.cfg.target_lang, self.cfg.left_pad_source
        yield from PairSplit.load_shards(self, self.cfg.data, split, *how)

    @property
    def worker(self):
        """The `Worker` of this process among fairseq's data-parallel processes."""
        if dist.is_available() and dist.is_initialized():
            return Worker(dist.get_rank(), dist.get_world_size(), dist.get_world_size())
        return Worker()

    @property
    def _device(self):
        if torch.cuda.is_available() and not self.cfg.cpu:
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    def _load_teacher(self, device, dtype):
        # Not the shared teacher: this one is freed after translating. The student is not on
        # the device yet, so there is memory for it.
        path, data, source = self._teacher_flags
        teacher = load_teacher(path, data, device, dtype, student_task=self, source=source)
        teacher.check_dictionaries(self)
        return teacher

    def _load_sources(self):
        """A function that returns {data-bin: the source that the teacher reads of it}."""

        @functools.lru_cache(maxsize=1)
        def load():
            path, data, name = self._teacher_flags
            sources, _ = load_sources(path, data, self, self.cfg.data, name)
            return dict(zip(utils.split_paths(self.cfg.data), sources))

        return load

    @property
    def _teacher_flags(self):
        return self.cfg.teacher_path, self.cfg.teacher_data, self.cfg.teacher_source

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if self.cfg.pseudo_targets == ONLINE and self.selector is not None and sample:
            sample = self._with_pseudo_targets(sample, model, update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def _with_pseudo_targets(self, sample, model, update_num):
        path, data, source = self._teacher_flags
        how = sample["target"].device, teacher_dtype_of(model, self.cfg), source
        teacher = shared_teacher(path, self, data, *how)
        search = new_search(self.targets, self._search(), self.cfg.seed)
        return with_pseudo_targets(sample, teacher, search, self.selector, draw=update_num)
