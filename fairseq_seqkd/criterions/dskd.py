"""DSKD: dual-space distillation, also between two vocabularies. It has parameters of its own.

fairseq trains, casts and saves the parameters of a criterion together with the student's, and
`export` leaves them out. So this is a criterion beside ``distill``, and none of its options.
"""

import contextlib
import logging
import math
from dataclasses import dataclass, field
from typing import Optional

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.data import data_utils
from omegaconf import II
from torch import nn

from fairseq_seqkd.compat import check_numpy
from fairseq_seqkd.criterions.distill import log_ratio
from fairseq_seqkd.databin import PairSplit
from fairseq_seqkd.losses.dual_space import (
    Positions,
    attended,
    dual_space_terms,
    nll,
    same_positions,
    summed,
)
from fairseq_seqkd.models.adapters import (
    encode,
    ends_in_output_layer,
    features_of,
    unwrapped,
)
from fairseq_seqkd.models.batches import collate_targets
from fairseq_seqkd.models.fit import check_student
from fairseq_seqkd.models.language_tokens import config_of_task, languages_of
from fairseq_seqkd.registry import flag
from fairseq_seqkd.teacher import (
    TeacherConfig,
    load_teacher,
    shared_teacher,
    teacher_dtype_of,
)

logger = logging.getLogger(__name__)


@dataclass
class DSKDConfig(TeacherConfig):
    """The flags of ``dskd``."""

    dskd_student_width: int = field(
        default=0,
        metadata={"help": "width of the student's decoder, its --decoder-embed-dim"},
    )
    dskd_teacher_width: int = field(
        default=0,
        metadata={"help": "width of the teacher's decoder, its --decoder-embed-dim"},
    )
    dskd_teacher_pairs: Optional[str] = field(
        default=None,
        metadata={
            "help": "a data-bin with the same training pairs in the teacher's own symbols: "
            "the two have different vocabularies (default: they have the same)"
        },
    )
    kd_alpha: float = field(
        default=0.5,
        metadata={"help": "weight of the three terms beside the target's NLL, in [0, 1]"},
    )
    kd_temperature: float = field(
        default=2.0,
        metadata={"help": "divides the logits that are compared; no factor T^2"},
    )
    sentence_avg: bool = II("optimization.sentence_avg")


def check_dskd(cfg):
    """Raise a ValueError that names the first flag out of its range."""

    def expect(is_valid, name, expected):
        if not is_valid:
            raise ValueError(f"{flag(name)} is {cfg[name]}, expected {expected}")

    for side in ("student", "teacher"):
        name = f"dskd_{side}_width"
        expect(cfg[name] > 0, name, f"the width of the {side}'s decoder (--decoder-embed-dim)")
    expect(0 < cfg.kd_alpha <= 1, "kd_alpha", "a number above 0, up to 1")
    expect(0 < cfg.kd_temperature <= 1000, "kd_temperature", "a number above 0, up to 1000")
    expect(cfg.teacher_path is not None, "teacher_path", "a checkpoint of one teacher")
    if cfg.teacher_source is not None and cfg.dskd_teacher_pairs is not None:
        raise ValueError(
            f"--teacher-source is {cfg.teacher_source!r} with --dskd-teacher-pairs: the "
            "teacher reads the sources of these pairs. Leave --teacher-source out."
        )


@register_criterion("dskd", dataclass=DSKDConfig)
class DSKDCriterion(FairseqCriterion):
    """(1 - a) NLL + a [KL(sg p_t2s || p) + CE(p_t2s, target) + KL(q || p_s2t)], a = kd_alpha.

    See ``losses/dual_space.py``. Validation has the NLL alone.

    Args:
        task: any with a target dictionary, of a Transformer that reads a source
        cfg: `DSKDConfig`
    Raises:
        ValueError: a flag is out of its range; or as `check_numpy`
    Source: Zhang et al. 2024 (arXiv 2406.17328), for causal language models; of an
        encoder-decoder the features are its decoder's.
    """

    stock_name = "label_smoothed_cross_entropy"  # the criterion of an exported student

    def __init__(self, task, cfg):
        super().__init__(task)
        check_numpy(task)
        check_dskd(cfg)
        self.cfg = cfg
        d, width = cfg.dskd_student_width, cfg.dskd_teacher_width
        self.to_student, self.to_teacher = nn.Linear(width, d), nn.Linear(d, width)
        if cfg.dskd_teacher_pairs is not None:
            self.query = nn.Linear(2 * d, 2 * width)
        # No modules, so fairseq neither saves nor trains them.
        self._teacher, self._pairs, self._is_checked = [], None, False

    def load_state_dict(self, state, strict=True):
        """As torch's; projectors begin anew after ``--finetune-from-model`` of another."""
        if state is None:
            logger.info("the checkpoint has no projectors of dskd: they begin anew")
            return None
        return super().load_state_dict(state, strict)

    def forward(self, model, sample, reduce=True):
        """The summed loss of a batch, in nats, its sample size and the sums that are logged.

        Args:
            model: the student
            sample: a batch as the task collates it
            reduce: fairseq's argument; the loss is always summed
        """
        student, target = unwrapped(model), sample["target"]
        if not self._is_checked:
            check_student(student, sample)
            check_decoder(student, "student", self.cfg)
            self._is_checked = True
        with output_layer_inputs(student) as inputs:
            logits = model(**sample["net_input"])[0]
        mask = target.ne(self.padding_idx)
        symbols = target[mask]
        nll_loss, _ = summed(
            lambda chunk, some: {"nll": nll(chunk, symbols[some])}, "nll", logits[mask]
        )
        loss, log = nll_loss, dict.fromkeys(_TERMS, 0)
        if self.training:
            log = self.terms(student, inputs[-1], logits, sample, mask)
            a = self.cfg.kd_alpha
            loss = (1 - a) * nll_loss + a * (log["t2s_kl"] + log["t2s_ce"] + log["s2t_kl"])
            log = {name: value.data for name, value in log.items()}
        sample_size = len(target) if self.cfg.sentence_avg else sample["ntokens"]
        sizes = {"ntokens": sample["ntokens"], "nsentences": len(target)}
        sizes["sample_size"] = sample_size
        return loss, sample_size, {"loss": loss.data, "nll_loss": nll_loss.data, **sizes, **log}

    def terms(self, student, features, logits, sample, mask):
        """The terms of `dual_space_terms` for a batch.

        Args:
            student: the model without wrappers
            features, logits: (rows, length, width) of its decoder, and its output
            sample, mask: the batch, and its (rows, length) target mask
        """
        teacher = self.get_teacher(student, features.device)
        contexts = sample["net_input"]["prev_output_tokens"]
        of_student = positions(student, features, contexts, sample["target"], mask)
        to_each, of_pairs = (self.to_student, self.to_teacher), self.cfg.dskd_teacher_pairs
        with torch.no_grad():
            inputs, symbols = self.of_teacher(teacher, sample)
            encoded = encode(teacher, inputs)
            flat = features_of(teacher, inputs, encoded)[0]
            features = flat.unflatten(0, tuple(symbols.shape))
            pad = self._teacher[0].task.target_dictionary.pad()
            contexts = inputs["prev_output_tokens"]
            of_teacher = positions(teacher, features, contexts, symbols, symbols.ne(pad))
        if of_pairs is None:
            projected = same_positions(of_student, of_teacher, *to_each)
        else:
            projected = attended(of_student, of_teacher, *to_each, self.query)
        how = self.cfg.kd_temperature, of_pairs is not None
        return dual_space_terms(of_student, of_teacher, logits, *projected, *how)

    def of_teacher(self, teacher, sample):
        """The arguments of the teacher's forward for a batch, and its targets.

        Raises:
            ValueError: a pair is too long for the teacher
        """
        if self._pairs is None:
            return self._teacher[0].inputs_of(sample), sample["target"]
        # A process without a batch repeats one of the validation, whose loss is ignored.
        items = [self._pairs[id_ % len(self._pairs)] for id_ in sample["id"].tolist()]
        limits = self._teacher[0].max_positions()
        for id_, item in zip(sample["id"].tolist(), items):
            lengths = len(item["source"]), len(item["target"])
            if any(length > limit for length, limit in zip(lengths, limits)):
                raise ValueError(
                    f"--dskd-teacher-pairs: pair {id_} has {lengths} tokens, and the teacher "
                    f"takes {limits}. Shorten it there, or take a teacher that reads more."
                )
        dictionary = self._pairs.src_dict
        source = [item["source"] for item in items]
        left_pad = self._pairs.left_pad_source
        tokens = data_utils.collate_tokens(source, dictionary.pad(), dictionary.eos(), left_pad)
        targets = collate_targets([item["target"] for item in items], self._pairs.tgt_dict)
        device = sample["target"].device
        inputs = {
            "src_tokens": tokens.to(device),
            "src_lengths": torch.tensor([len(one) for one in source], device=device),
            "prev_output_tokens": targets["prev_output_tokens"].to(device),
        }
        return inputs, targets["target"].to(device)

    def get_teacher(self, student, device):
        """The teacher's model, loaded at the first call.

        Raises:
            ValueError: it is none that this method knows, or the pairs do not fit
        """
        if not self._teacher:
            path, data, cfg = self.cfg.teacher_path, self.cfg.teacher_data, self.cfg
            dtype = teacher_dtype_of(student, cfg)
            if cfg.dskd_teacher_pairs is None:
                teacher = shared_teacher(
                    path, self.task, data, device, dtype, cfg.teacher_source
                )
            else:
                languages = languages_of(self.task)
                teacher = load_teacher(path, data, device, dtype, languages=languages)
                self._pairs = load_pairs(cfg.dskd_teacher_pairs, teacher.task, self.task)
            check_teacher(teacher, cfg)
            self._teacher.append(teacher)
        return self._teacher[0].models[0]

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        """Log what stock label_smoothed_cross_entropy logs, and the three terms, in bits."""
        LabelSmoothedCrossEntropyCriterion.reduce_metrics(logging_outputs)
        for name in ("t2s_kl", "t2s_ce", "s2t_kl"):
            log_ratio(logging_outputs, name, name, "ntokens", 1 / math.log(2))
        log_ratio(logging_outputs, "t2s_right", "n_t2s_right", "ntokens", 100)

    @staticmethod
    def logging_outputs_can_be_summed():
        """All logged values are sums, so fairseq may add them up across workers."""
        return True


_TERMS = "t2s_kl", "t2s_ce", "s2t_kl", "n_t2s_right"


@contextlib.contextmanager
def output_layer_inputs(student):
    """Collect the features that a student's output layer gets while it runs."""
    inputs = []
    layer = student.decoder.output_projection
    hook = layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        yield inputs
    finally:
        hook.remove()


def positions(model, features, contexts, targets, mask):
    """The `Positions` of a batch in a model's decoder; no gradient for head and embeddings."""
    with torch.no_grad():
        embedded = [model.decoder.embed_tokens(tokens) for tokens in (contexts, targets)]
    head = model.decoder.output_projection.weight.detach()
    return Positions(features, head, *embedded, targets, mask)


def check_decoder(model, role, cfg):
    """Refuse a model without a Transformer's output layer and embeddings, or of another width.

    Raises:
        ValueError: names the flag, and the width that was found
    """
    decoder, name = getattr(model, "decoder", None), f"dskd_{role}_width"
    head, embedded = (
        getattr(getattr(decoder, part, None), "weight", None)
        for part in ("output_projection", "embed_tokens")
    )
    if not (ends_in_output_layer(model) and torch.is_tensor(head)) or embedded is None:
        raise ValueError(
            f"--criterion dskd: the {role}, {type(model).__name__}, has no output layer with "
            "weights of its own kind. Expected a Transformer that reads a source."
        )
    if head.size(1) != cfg[name] or embedded.size(1) != cfg[name]:
        raise ValueError(
            f"{flag(name)} is {cfg[name]}, but the {role}'s output layer reads {head.size(1)} "
            f"numbers and its embeddings have {embedded.size(1)}: expected one width for both."
        )


def check_teacher(teacher, cfg):
    """Refuse several teachers, and one that gets language tokens; or as `check_decoder`."""
    if len(teacher.models) > 1:
        raise ValueError(
            f"--teacher-path {cfg.teacher_path!r}: dskd compares features, of one teacher. "
            "Expected one checkpoint."
        )
    if teacher.language_tokens.n_target or teacher.language_tokens.n_symbols is not None:
        raise ValueError(
            "--criterion dskd: the teacher's targets have language tokens. Expected a "
            "teacher of plain pairs; with another take --criterion distill."
        )
    check_decoder(teacher.models[0], "teacher", cfg)


def load_pairs(folder, teacher_task, student_task):
    """The training pairs in the teacher's symbols.

    Raises:
        FileNotFoundError: there is no such split
        ValueError: there are more or fewer than the student's
    """
    split = getattr(config_of_task(student_task), "train_subset", None) or "train"
    languages = languages_of(teacher_task)
    left_pad = getattr(config_of_task(teacher_task), "left_pad_source", True)
    pairs = PairSplit.load(teacher_task, folder, split, *languages, left_pad).dataset
    expected = len(student_task.dataset(split))
    if len(utils.split_paths(config_of_task(student_task).data)) > 1 or pairs.tgt is None:
        raise ValueError(
            f"--dskd-teacher-pairs {folder!r}: expected one data-bin of pairs, and one of the "
            "student, in which the number of a sentence identifies it"
        )
    if len(pairs) != expected:
        raise ValueError(
            f"--dskd-teacher-pairs {folder!r}: its split {split!r} has {len(pairs)} pairs, and "
            f"the student's {expected}. Expected the same sentences in the same order: "
            "binarise the same text with the teacher's subwords and dictionaries."
        )
    return pairs
