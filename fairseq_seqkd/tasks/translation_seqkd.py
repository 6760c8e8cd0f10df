"""Stock ``translation`` whose training targets may be the teacher's, and whose student may be
pruned while it is trained.

Validation and test sets stay gold.
"""

import contextlib
import logging
from dataclasses import dataclass, field
from typing import Optional

import torch
import torch.distributed as dist
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.databin import plain_split
from fairseq_seqkd.pruning.hook import PruningConfig, PruningMixin
from fairseq_seqkd.pseudo.build_databin import prepare_databin
from fairseq_seqkd.pseudo.fairseq_generate import StoreGenerationConfig, StoreGenerationMixin
from fairseq_seqkd.pseudo.generate import Recipe, new_search
from fairseq_seqkd.pseudo.online import with_pseudo_targets
from fairseq_seqkd.pseudo.selectors import METRICS, build_selector
from fairseq_seqkd.pseudo.target_spec import TargetSpec
from fairseq_seqkd.tasks.pairs import PairsWithGold
from fairseq_seqkd.teacher import TeacherConfig, dtype_beside, load_teacher, shared_teacher

logger = logging.getLogger(__name__)


@dataclass
class TranslationSeqKDConfig(
    TranslationConfig, TeacherConfig, PruningConfig, StoreGenerationConfig
):
    pseudo_metric: ChoiceEnum(list(METRICS)) = field(
        default="bleu",
        metadata={"help": "by what the closest hypothesis is the closest to gold"},
    )
    pseudo_remove_bpe: Optional[str] = field(
        default=None,
        metadata={
            "help": "remove BPE before the closest hypothesis is measured against gold",
            "argparse_const": "@@ ",
        },
    )
    teacher_beam: Optional[int] = field(
        default=None,
        metadata={
            "help": "beam of the teacher's search (default: what the store has; for a new "
            "one 5, or 35 for closest)"
        },
    )
    teacher_nbest: Optional[int] = field(
        default=None,
        metadata={"help": "hypotheses kept a sentence (default: all of the beam)"},
    )
    teacher_lenpen: Optional[float] = field(
        default=None,
        metadata={"help": "length penalty of the teacher's search (default: 1)"},
    )
    teacher_sampling: bool = field(
        default=False,
        metadata={"help": "sample from the teacher, in place of a beam search"},
    )
    teacher_sampling_topk: Optional[int] = field(
        default=None, metadata={"help": "sample among the k most probable symbols"}
    )
    teacher_sampling_topp: Optional[float] = field(
        default=None,
        metadata={"help": "sample among the fewest symbols with this much probability"},
    )
    teacher_engine: ChoiceEnum(["auto", "fairseq", "ctranslate2"]) = field(
        default="auto",
        metadata={
            "help": "what translates for a new store; auto is CTranslate2 if it is "
            "installed and can convert the teacher"
        },
    )
    cpu: bool = II("common.cpu")
    fp16: bool = II("common.fp16")


ONLINE = "online"


@register_task("translation_seqkd", dataclass=TranslationSeqKDConfig)
class TranslationSeqKDTask(PruningMixin, StoreGenerationMixin, TranslationTask):
    """Translation on gold or on the teacher's targets, as the criterion asks for."""

    stock_name = "translation"  # the task of an exported student

    def __init__(self, cfg, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        self.use_targets("gold")

    def use_targets(self, targets, with_gold=False):
        """Set the targets of training batches from now on.

        Args:
            targets: ``gold``, or a selector's name (``best``, ``closest``)
            with_gold: whether batches of pseudo-targets hold the gold target as well
        """
        self.targets = targets
        self.with_gold = with_gold
        self.selector = None
        if targets != "gold":
            self.selector = build_selector(
                targets,
                self.tgt_dict,
                self.cfg.pseudo_remove_bpe,
                metric=str(self.cfg.pseudo_metric),
            )

    def build_criterion(self, cfg, *args, **kwargs):
        criterion = super().build_criterion(cfg, *args, **kwargs)
        # A criterion that does not ask trains on gold.
        self.use_targets(
            getattr(criterion, "kd_targets", "gold"),
            with_gold=getattr(criterion, "gold_weight", 0) > 0,
        )
        return criterion

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """Load a split; the training split with the targets that are asked for.

        Raises:
            FileNotFoundError: there is no store and no teacher to make it with
            ValueError: a store made otherwise, or a way of loading data in which a
                sentence's number does not identify it
        """
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        if split != self.cfg.train_subset:
            return
        if self.targets == "gold":
            if self.cfg.pseudo_targets is not None and self.cfg.generates_with is None:
                logger.warning(
                    "training on gold targets, --pseudo-targets is not used: the criterion "
                    "does not ask for it (see --kd-targets)"
                )
            return
        if self.cfg.pseudo_targets == ONLINE:
            if self.cfg.teacher_path is None:
                raise ValueError("--pseudo-targets online needs --teacher-path CHECKPOINT")
            return
        gold = self.datasets[split]
        with self._data_in(self._databin(split)):
            super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        if self.with_gold:
            if len(self.datasets[split]) != len(gold):
                raise ValueError(
                    f"--gold-weight: the data-bin in {self.cfg.pseudo_targets!r} has "
                    f"{len(self.datasets[split])} of the {len(gold)} sentences, so that gold "
                    "cannot be told. Build one without --filter-action drop."
                )
            self.datasets[split] = PairsWithGold(self.datasets[split], gold)

    @contextlib.contextmanager
    def _data_in(self, folder):
        saved = self.cfg.data, self.cfg.dataset_impl
        self.cfg.data, self.cfg.dataset_impl = folder, None  # each file tells its own
        try:
            yield
        finally:
            self.cfg.data, self.cfg.dataset_impl = saved

    def _databin(self, split):
        """The folder with the training targets that are asked for, made if need be."""
        if self.cfg.pseudo_targets is None:
            raise ValueError(
                f"training on {self.targets!r} targets needs --pseudo-targets DIR: the "
                "folder where they are, or are to be made with --teacher-path"
            )
        worker = self.worker
        recipe = Recipe(
            teacher_path=self.cfg.teacher_path,
            load_teacher=self._load_teacher,
            search=self._search(),
            engine={"name": str(self.cfg.teacher_engine)},
            device=self._device,
            threads=min(worker.threads, torch.get_num_threads()),
            seed=self.cfg.seed,
            half=self._device.type == "cuda" and self.cfg.fp16,
        )
        return prepare_databin(
            self.cfg.pseudo_targets,
            self.plain_split(split),
            TargetSpec(self.selector),
            recipe,
            worker,
            processes=worker.threads,
        )

    def _search(self):
        """What the flags say of the teacher's search; None where they say nothing."""
        return {
            "beam": self.cfg.teacher_beam,
            "nbest": self.cfg.teacher_nbest,
            "lenpen": self.cfg.teacher_lenpen,
            "sampling": self.cfg.teacher_sampling or None,
            "sampling_topk": self.cfg.teacher_sampling_topk,
            "sampling_topp": self.cfg.teacher_sampling_topp,
        }

    def plain_split(self, split):
        """The `PairSplit` of that name; refuses data whose numbers identify no sentence."""
        if self.cfg.load_alignments:
            raise ValueError(
                "--load-alignments: the alignments are those of gold targets and would not "
                "fit pseudo-targets. Leave the flag out."
            )
        languages = self.cfg.source_lang, self.cfg.target_lang
        return plain_split(self, self.cfg.data, split, *languages, self.cfg.left_pad_source)

    @property
    def worker(self):
        """This process as a `Worker` among those that fairseq runs together."""
        if dist.is_available() and dist.is_initialized():
            return Worker(dist.get_rank(), dist.get_world_size(), dist.get_world_size())
        return Worker()

    @property
    def _device(self):
        if torch.cuda.is_available() and not self.cfg.cpu:
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    def _load_teacher(self, device, dtype):
        # One of its own, that goes when the translating is done; nothing is on a device
        # yet whose place it could take.
        path, data = self.cfg.teacher_path, self.cfg.teacher_data
        teacher = load_teacher(path, data, device, dtype, student_task=self)
        teacher.check_dictionaries(self)
        return teacher

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if self.cfg.pseudo_targets == ONLINE and self.selector is not None and sample:
            sample = self._translated(sample, model, update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def _translated(self, sample, model, update_num):
        teacher = shared_teacher(
            self.cfg.teacher_path,
            self,
            self.cfg.teacher_data,
            sample["target"].device,
            dtype_beside(model, self.cfg),
        )
        search = new_search(self.targets, self._search(), self.cfg.seed)
        return with_pseudo_targets(sample, teacher, search, self.selector, draw=update_num)
