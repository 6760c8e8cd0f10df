"""Stock ``translation`` whose training targets may be the teacher's.

Validation and test sets stay gold.
"""

import contextlib
import logging
from dataclasses import dataclass, field
from typing import Optional

import torch
import torch.distributed as dist
from fairseq import utils
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II

from fairseq_seqkd.pseudo.corpus import GoldSplit
from fairseq_seqkd.pseudo.generate import prepare_databin
from fairseq_seqkd.pseudo.select import build_selector
from fairseq_seqkd.tasks.pairs import PairsWithGold
from fairseq_seqkd.teacher import TeacherConfig, load_teacher

logger = logging.getLogger(__name__)


@dataclass
class TranslationSeqKDConfig(TranslationConfig, TeacherConfig):
    pseudo_targets: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder of the store with the teacher's translations of the training "
            "set; made with --teacher-path if it is not there"
        },
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
    cpu: bool = II("common.cpu")
    fp16: bool = II("common.fp16")


@register_task("translation_seqkd", dataclass=TranslationSeqKDConfig)
class TranslationSeqKDTask(TranslationTask):
    """Translation on gold or on the teacher's targets, as the criterion asks for."""

    def __init__(self, cfg, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        self.use_targets("gold")

    def use_targets(self, targets, with_gold=False):
        """Choose what training batches hold from now on.

        Args:
            targets: ``gold``, or the name of a selection (``best``, ``closest``)
            with_gold: whether batches of pseudo-targets hold the gold target as well
        """
        self.targets = targets
        self.with_gold = with_gold

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
            if self.cfg.pseudo_targets is not None:
                logger.warning(
                    "training on gold targets, --pseudo-targets is not used: the criterion "
                    "does not ask for it (see --kd-targets)"
                )
            return
        gold = self.datasets[split]
        with self._data_in(self._databin(split)):
            super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        if self.with_gold:
            self.datasets[split] = PairsWithGold(self.datasets[split], gold)

    @contextlib.contextmanager
    def _data_in(self, folder):
        own = self.cfg.data, self.cfg.dataset_impl
        self.cfg.data, self.cfg.dataset_impl = folder, None  # each file tells its own
        try:
            yield
        finally:
            self.cfg.data, self.cfg.dataset_impl = own

    def _databin(self, split):
        """The folder with the training targets that are asked for, made if need be."""
        if self.cfg.pseudo_targets is None:
            raise ValueError(
                f"training on {self.targets!r} targets needs --pseudo-targets DIR: the "
                "folder where they are, or are to be made with --teacher-path"
            )
        gold = self._one_plain_pair(split)
        rank, world_size = data_parallel_rank()
        return prepare_databin(
            self.cfg.pseudo_targets,
            gold,
            build_selector(self.targets, self.tgt_dict, self.cfg.pseudo_remove_bpe),
            {
                "beam": self.cfg.teacher_beam,
                "nbest": self.cfg.teacher_nbest,
                "lenpen": self.cfg.teacher_lenpen,
            },
            self.cfg.teacher_path,
            self._load_teacher,
            rank,
            world_size,
        )

    def _one_plain_pair(self, split):
        """The gold split, refused where a line's number would not identify it."""
        paths = utils.split_paths(self.cfg.data)
        if len(paths) > 1:
            raise ValueError(
                f"data is {self.cfg.data!r}: pseudo-targets are kept for one data-bin, "
                f"found {len(paths)} separated by colons. Binarise them as one."
            )
        if self.cfg.load_alignments:
            raise ValueError(
                "--load-alignments: the alignments are those of gold targets and would not "
                "fit pseudo-targets. Leave the flag out."
            )
        gold = GoldSplit.load(
            paths[0],
            split,
            self.cfg.source_lang,
            self.cfg.target_lang,
            self.src_dict,
            self.tgt_dict,
            self.cfg.left_pad_source,
        )
        if gold.has_continuation:
            raise ValueError(
                f"{paths[0]!r} has {split}1 files, which fairseq appends to {split}: "
                f"pseudo-targets are kept for {split} alone. Binarise them as one split "
                "(repeat lines for --upsample-primary)."
            )
        return gold

    def _load_teacher(self):
        # Nothing is on a device yet whose place the teacher could take.
        on_gpu = torch.cuda.is_available() and not self.cfg.cpu
        # One of its own, that goes when the translating is done.
        teacher = load_teacher(
            self.cfg.teacher_path,
            self.cfg.teacher_data,
            torch.device("cuda", torch.cuda.current_device()) if on_gpu else "cpu",
            torch.float16 if on_gpu and self.cfg.fp16 else torch.float32,
            student_task=self,
        )
        teacher.check_dictionaries(self)
        return teacher


def data_parallel_rank():
    """This process's (rank, world size) among those that train together."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
