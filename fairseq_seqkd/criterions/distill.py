"""The general criterion. With t the target that stands in the batch, D the divergence,
a = ``--kd-alpha``, g = ``--gold-weight``, and the weights w of D (``--kd-weighting``), v of
NLL(t) (``--nll-weighting``) and s of a sentence (``--sentence-weighting``), 1 by default:

    loss = s * {(1 - g) * [(1 - a) * v * NLL(t) + a * w * T^2 * D(teacher_T, student_T)]
                + g * NLL(gold)}

summed over target tokens. A student row (one that the student generated) has no target to
learn from: there a is 1, unless an ``--nll-weighting`` says what its tokens are worth. Each
published method is a setting of these flags; the presets beside this file only change defaults.
"""

import logging
import math

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics

from fairseq_seqkd.cache.lookup import open_cache_reader
from fairseq_seqkd.compat import check_numpy
from fairseq_seqkd.criterions.cold_start import warn_of_cold_start
from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.decoder_passes import argmax_loss, gold_loss
from fairseq_seqkd.criterions.logged import LOGGED
from fairseq_seqkd.criterions.memory import Memory
from fairseq_seqkd.criterions.method import check_task, resolve_method
from fairseq_seqkd.criterions.text_weights import LossWeights, with_text_weights
from fairseq_seqkd.criterions.validation import record_nll
from fairseq_seqkd.losses.blockwise_sum import (
    TargetPositions,
    masked_sum,
    smoothed_nll_weights,
    weighted_sum,
)
from fairseq_seqkd.losses.statistics import Masks, PositionStatistics
from fairseq_seqkd.losses.support import NoTeacher, TopKAndTail, WholeVocabulary
from fairseq_seqkd.models.adapters import encoder_outputs_of, output_layer_at, unwrapped
from fairseq_seqkd.models.batches import rows_without_target
from fairseq_seqkd.models.fit import check_student
from fairseq_seqkd.prefixes import PrefixedBatch, TrainingStep
from fairseq_seqkd.teacher import shared_teacher, teacher_dtype_of

logger = logging.getLogger(__name__)


@register_criterion("distill", dataclass=DistillConfig)
class DistillCriterion(FairseqCriterion):
    """One point in the space of distillation losses, set by its configuration.

    Args:
        task: any fairseq task with a target dictionary; pseudo-targets need one that
            provides them (``translation_seqkd``)
        cfg: `DistillConfig` or a preset of it
    Raises:
        ValueError: a value is out of its range, or the task has no pseudo-targets; or as
            `check_numpy`
    """

    stock_name = "label_smoothed_cross_entropy"  # the criterion of an exported student

    # A method's own defaults of axis parameters, where the configuration has none.
    preset = {}

    def __init__(self, task, cfg):
        super().__init__(task)
        check_numpy(task)
        check_task(cfg, task)
        self.cfg = cfg
        self.method = resolve_method(cfg, self.preset)
        self.kd_targets = str(cfg.kd_targets)
        self.gold_weight = cfg.gold_weight
        self._teacher = None  # no module, so fairseq neither saves nor trains it
        self._teacher_is_missing = self._is_student_checked = self._is_start_checked = False
        self._cache = None
        remembered = self.method.remembers
        self._memory = Memory(task, cfg, remembered) if remembered else None

    def forward(self, model, sample, reduce=True):
        """The summed loss of a batch, in nats, its sample size and the sums that are logged.

        Args:
            model: the student
            sample: a batch as the task collates it; with a ``gold`` entry
                (``target``, ``prev_output_tokens``) when ``target`` is a pseudo-target
            reduce: fairseq's argument; the loss is always summed
        """
        student = unwrapped(model)
        if not self._is_student_checked:
            check_student(student, sample)
            self._is_student_checked = True
        teacher = self.get_teacher(student, sample["target"].device)
        sample, student_rows_mask, prefix_log = self.with_prefixes(sample, student, teacher)
        # Before the student runs: a GPU would have to be waited for afterwards.
        positions = TargetPositions(sample["target"].ne(self.padding_idx))
        comparator = self.build_comparator(teacher, sample, positions)
        with output_layer_at(student, positions.index) as logits_of_output:
            with encoder_outputs_of(model) as encoder_outputs:
                logits = logits_of_output(model(**sample["net_input"]))
        target, n_rows = positions.take(sample["target"]), len(sample["target"])
        gold = sample.get("gold") if self.gold_weight > 0 else None
        a, g = self.cfg.kd_alpha, self.gold_weight
        weights = LossWeights((1 - g) * (1 - a), g if gold is None else 0.0)
        texts = logits, target, positions
        if self.method.weighs_text:
            weights = with_text_weights(weights, self, *texts, sample.get("gold"))
        loss, log = self.token_loss(*texts, student_rows_mask, comparator, weights)
        if self.gold_weight > 0:
            log["n_without_gold"] = rows_without_target(gold or sample, self.padding_idx)
        if gold is not None:
            loss = loss + gold_loss(self, student, encoder_outputs[-1], gold, weights)
        if self.n_passes > 1:
            passes = student, encoder_outputs, teacher, sample, logits, positions, weights
            loss = loss + argmax_loss(self, *passes)

        sample_size = n_rows if self.cfg.sentence_avg else sample["ntokens"]
        sizes = {"ntokens": sample["ntokens"], "nsentences": n_rows}
        sizes["sample_size"] = sample_size
        if self.method.sentence_weighting is not None:
            log["sentence_weight"] = n_rows if weights.rows is None else weights.rows.sum()
        return loss, sample_size, {"loss": loss.data, **sizes, **log, **prefix_log}

    def token_loss(
        self, logits, target, positions, student_rows_mask, comparator, loss_weights
    ):
        """The loss at the target positions of one forward pass.

        Args:
            logits: (positions, vocab) the student's
            target: (positions,) symbols
            positions: `TargetPositions`
            student_rows_mask: (batch,) True for rows that the student generated
            comparator: compares student and teacher, see `build_comparator`
            loss_weights: `LossWeights`
        Returns:
            a scalar in nats; and sums for logging, over all positions whatever their weight
            in the loss
        """
        masks = self.build_masks(student_rows_mask[positions.rows], comparator.teacher_mask)
        counted_mask = self.counted_mask(masks)
        more = self._memory.at(self.current_step()) if self._memory else {}
        more["student_rows_mask"] = student_rows_mask
        texts = logits, target, counted_mask, positions
        statistics = PositionStatistics(comparator, *texts, **more)

        def values_of(chunk, some):
            comparison = comparator.compare(chunk, target[some], some)
            values = {
                "target_lprob": comparison.target_lprobs,
                "summed_lprob": comparison.summed_lprobs,
            }
            support = comparison.support
            if support is not None:
                in_student_rows = masks.student_position_mask[some]
                values["kd_loss"] = self.divergence_at(support, statistics, in_student_rows)
                values["n_agree"] = support.agreement_mask
                values["teacher_entropy"] = support.teacher_entropy
            if self.cfg.report_accuracy:
                values["n_correct"] = chunk.argmax(-1) == target[some]
            return values

        weights = self.weights_of_values(statistics, masks, loss_weights)
        loss, values = weighted_sum(values_of, weights, logits)
        return loss, self.log_of(values, masks)

    def weights_of_values(self, statistics, masks, loss_weights):
        """{name: (positions,)} the weights of the values of which the loss is the sum."""
        weights, (of_target, of_gold, v, s) = {}, loss_weights
        if of_target + of_gold > 0:
            weight = (of_target + of_gold) * masks.data_target_mask
            if v is not None:
                weight = of_target * v + of_gold * masks.data_target_mask
            n_symbols = statistics.logits.size(-1)
            weights = smoothed_nll_weights(weight, self.cfg.label_smoothing, n_symbols)
        if not isinstance(statistics.comparator, NoTeacher):
            weights["kd_loss"] = self.kd_weights(statistics, masks)
        if s is not None:
            s = s[statistics.positions.rows]
            weights = {name: s * weight for name, weight in weights.items()}
        return weights

    @staticmethod
    def build_masks(student_position_mask, teacher_mask):
        """The `Masks` of target positions; arguments (positions,), the second may be None."""
        if teacher_mask is None:
            teacher_mask = torch.ones_like(student_position_mask)
        return Masks(~student_position_mask, student_position_mask, teacher_mask)

    def counted_mask(self, masks):
        """(positions,) True at the positions that statistics of the batch are over.

        These are the compared ones whose divergence has a weight; if none has, all compared.
        """
        weighted = masks.compared_mask & (self.kd_alpha_at(masks.student_position_mask) > 0)
        return weighted if weighted.any() else masks.compared_mask

    def divergence_at(self, support, statistics, student_position_mask):
        """(positions,) T^2 D in nats.

        The factor T^2 keeps the gradient's size independent of T (Hinton et al. 2015,
        arXiv 1503.02531, section 2.1).

        Args:
            support: `Support` at some positions
            statistics: `PositionStatistics` of the batch
            student_position_mask: (positions,) True in student rows
        """
        value = self.method.divergence(support, statistics)
        if self.method.student_divergence is not None:
            other = self.method.student_divergence(support, statistics)
            value = torch.where(student_position_mask, other, value)
        return self.cfg.kd_temperature**2 * value

    def kd_weights(self, statistics, masks):
        """(positions,) the divergence's weight, (1 - g) a w / passes."""
        a = self.kd_alpha_at(masks.student_position_mask)
        weight = (1 - self.gold_weight) * a / self.n_passes
        if self.method.weighting is not None:
            weight = weight * self.method.weighting(statistics)
        return weight * masks.compared_mask

    def kd_alpha_at(self, student_position_mask):
        """a at every position: 1 in student rows, unless their NLL is weighted."""
        if self.method.nll_weighting is None:
            return student_position_mask.float().clamp(min=self.cfg.kd_alpha)
        return self.cfg.kd_alpha * torch.ones_like(student_position_mask, dtype=torch.float)

    @property
    def needs_gold(self):
        """Whether gold targets are needed beside pseudo-targets."""
        return self.gold_weight > 0 or self.method.nll_weighting is not None

    def with_prefixes(self, sample, student, teacher):
        """The batch as `PrefixedBatch`; with ``--kd-prefixes data`` it stays as it is."""
        if self.method.prefix_policy is None:
            nowhere = torch.zeros_like(sample["target"][:, 0], dtype=torch.bool)
            return PrefixedBatch(sample, nowhere, {})
        step = self.current_step()
        if step is not None and not self._is_start_checked:
            self._is_start_checked = True
            warn_of_cold_start(self.cfg, self.method, step.update)
        remembers = self._memory is not None and step is not None
        memory = self._memory.of_policy(step) if remembers else None
        return self.method.prefix_policy(sample, student, teacher, self.task, step, memory)

    @property
    def n_passes(self):
        """How many contexts the divergence is a mean over; validation has the data's alone."""
        return self.cfg.kd_passes if self.training else 1

    def current_step(self):
        """Where training is, a `TrainingStep`; None in validation."""
        return TrainingStep.now(self.cfg) if self.training else None

    def build_comparator(self, teacher, sample, positions):
        """The object that compares student and teacher at a batch's `TargetPositions`."""
        k, temperature = self.cfg.kd_top_k, self.cfg.kd_temperature
        if self.uses_cache:
            top, teacher_mask = self.cache.look_up(sample, positions, self.padding_idx)
            top = top.first(k or self.cache.k)
            return TopKAndTail(top, self.method.leftover, temperature, teacher_mask)
        if teacher is None:
            return NoTeacher()
        logits = teacher.logits(teacher.inputs_of(sample, self.training))
        logits = logits.select(positions.index)
        if k is None:
            return WholeVocabulary(logits.at, temperature)
        return TopKAndTail(logits.top_k(k, temperature), self.method.leftover, temperature)

    def get_teacher(self, model, device):
        """The teacher, loaded at the first call.

        None if nothing is compared, with a cache, or in a validation without its checkpoint.
        """
        path, data = self.cfg.teacher_path, self.cfg.teacher_data
        if not self.method.uses_teacher or self.uses_cache or path is None:
            return None
        if self._teacher is None and (self.training or not self._teacher_is_missing):
            try:
                how = device, teacher_dtype_of(model, self.cfg), self.cfg.teacher_source
                self._teacher = shared_teacher(path, self.task, data, *how)
            except FileNotFoundError as error:
                if self.training:
                    raise
                self._teacher_is_missing = True
                logger.warning("validating without a teacher, kd_loss is 0: %s", error)
        return self._teacher

    @property
    def uses_cache(self):
        """Whether a cache stands in for the teacher: in training, since it is of that split."""
        return self.method.uses_teacher and self.training and self.cfg.kd_cache is not None

    @property
    def cache(self):
        """The cache, opened at the first call; raises as `open_cache_reader`."""
        if self._cache is None:
            self._cache = open_cache_reader(self.cfg, self.task)
            self.method.check_k(self.cfg.kd_top_k or self._cache.k, "--kd-cache has the top")
        return self._cache

    def log_of(self, values, masks):
        """Sums for logging, of (positions,) tensors by name and flat `Masks`."""
        zeros = torch.zeros_like(values["target_lprob"])
        log = {"nll_loss": -masked_sum(masks.data_target_mask, values["target_lprob"])}
        if self.method.uses_teacher:
            for name in ("kd_loss", "n_agree", "teacher_entropy"):
                log[name] = masked_sum(masks.compared_mask, values.get(name, zeros))
        if self.method.prefix_policy is not None:
            log["n_data_targets"] = masks.data_target_mask.sum()
        if self.cfg.report_accuracy:
            log["n_correct"] = masked_sum(masks.data_target_mask, values["n_correct"])
            log["total"] = masks.data_target_mask.sum()
        return log

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        """Log what stock label_smoothed_cross_entropy logs, and the teacher's part.

        Losses and entropies are in bits a token. The NLL and all that follows from it are of
        rows with data targets.
        """
        of_data = [
            {**log, "ntokens": log.get("n_data_targets", log.get("ntokens", 0))}
            for log in logging_outputs
        ]
        if sum(log["ntokens"] for log in of_data) > 0:
            LabelSmoothedCrossEntropyCriterion.reduce_metrics(of_data)
        else:
            log_ratio(logging_outputs, "loss", "loss", "sample_size", 1 / math.log(2))
        for ratio in LOGGED:
            log_ratio(logging_outputs, *ratio)
        if any("n_validation_tokens" in log for log in logging_outputs):
            record_nll(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed():
        """All logged values are sums, so fairseq may add them up across workers."""
        return True


def log_ratio(logging_outputs, name, key, weight, unit):
    """Log sum(key) / sum(weight) in the given unit; nothing, if no step has the key."""
    if not any(key in log for log in logging_outputs):
        return
    value, n = (sum(log.get(k, 0) for log in logging_outputs) for k in (key, weight))
    metrics.log_scalar(name, unit * value / n if n > 0 else 0.0, n, round=3)
