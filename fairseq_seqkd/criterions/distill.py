"""The general criterion. With t the target that stands in the batch, D the divergence,
a = ``--kd-alpha`` and g = ``--gold-weight``:

    loss = (1 - g) * [(1 - a) * NLL(t) + a * T^2 * D(teacher_T, student_T)] + g * NLL(gold)

summed over target tokens. Each published method is a choice of these flags; the presets
beside this file only change defaults.
"""

import contextlib
import logging
import math
from dataclasses import dataclass, field

from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    label_smoothed_nll_loss,
)
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from omegaconf import II

from fairseq_seqkd.distribution import tempered
from fairseq_seqkd.objectives.divergences import forward_kl
from fairseq_seqkd.teacher import TeacherConfig, shared_teacher

logger = logging.getLogger(__name__)

Targets = ChoiceEnum(["gold", "best", "closest"])


@dataclass
class DistillConfig(TeacherConfig):
    kd_targets: Targets = field(
        default="gold",
        metadata={
            "help": "the target to train on: gold, the teacher's best hypothesis, or its "
            "n-best hypothesis closest to gold (the last two: --task translation_seqkd)"
        },
    )
    kd_alpha: float = field(
        default=0.5,
        metadata={
            "help": "share of the teacher's distribution beside the target's NLL, in [0, 1]"
        },
    )
    gold_weight: float = field(
        default=0.0,
        metadata={
            "help": "share of the gold target's NLL in the whole loss, in [0, 1]; for use "
            "with pseudo-targets"
        },
    )
    kd_temperature: float = field(
        default=1.0,
        metadata={
            "help": "divides the logits of both before they are compared, > 0; the "
            "divergence is multiplied by its square"
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "epsilon of the NLL terms, in [0, 1); 0 means no label smoothing"},
    )
    report_accuracy: bool = field(
        default=False, metadata={"help": "log the student's top-1 accuracy"}
    )
    sentence_avg: bool = II("optimization.sentence_avg")


def check_config(cfg):
    """Raise a ValueError that names the first flag out of its range."""

    def expect(holds, name, expected):
        if not holds:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} is {cfg[name]}, expected {expected}")

    expect(0 <= cfg.kd_alpha <= 1, "kd_alpha", "a number from 0 to 1")
    expect(0 <= cfg.gold_weight <= 1, "gold_weight", "a number from 0 to 1")
    expect(0 < cfg.kd_temperature < math.inf, "kd_temperature", "a number above 0")
    expect(0 <= cfg.label_smoothing < 1, "label_smoothing", "from 0 to below 1")
    expect(
        cfg.teacher_path is not None or not uses_teacher(cfg),
        "teacher_path",
        "a checkpoint to compare the student with (or --kd-alpha 0)",
    )


def uses_teacher(cfg):
    """Whether the divergence has any weight."""
    return (1 - cfg.gold_weight) * cfg.kd_alpha > 0


@register_criterion("distill", dataclass=DistillConfig)
class DistillCriterion(FairseqCriterion):
    """One point in the space of distillation losses, chosen by its configuration.

    Args:
        task: any fairseq task with a target dictionary; pseudo-targets need one that
            provides them (``translation_seqkd``)
        cfg: :class:`DistillConfig` or a preset of it
    Raises:
        ValueError: a value is out of its range, or the task has no pseudo-targets
    """

    def __init__(self, task, cfg):
        super().__init__(task)
        check_config(cfg)
        self.cfg = cfg
        self.kd_targets = str(cfg.kd_targets)
        self.gold_weight = cfg.gold_weight
        self.uses_teacher = uses_teacher(cfg)
        self.divergence = forward_kl
        self._teacher = None  # no module, so fairseq neither saves nor trains it
        self._teacher_is_missing = False
        if self.kd_targets != "gold" and not hasattr(task, "use_targets"):
            raise ValueError(
                f"--kd-targets {self.kd_targets} needs pseudo-targets, and the task "
                f"{type(task).__name__} has none: use --task translation_seqkd with "
                "--pseudo-targets DIR, or train on a store's data-bin with "
                "--kd-targets gold"
            )

    def forward(self, model, sample, reduce=True):
        """The summed loss of a batch, in nats, its sample size and what is logged.

        Args:
            model: the student
            sample: a batch as the task collates it; with a ``gold`` entry
                (``target``, ``prev_output_tokens``) when ``target`` is a pseudo-target
            reduce: fairseq's argument; the loss is always summed
        """
        with encoder_outputs_of(model) as encoder_outputs:
            net_output = model(**sample["net_input"])
        lprobs, target = self.positions(model, net_output, sample)
        target_loss, nll_loss = self.nll(lprobs, target)
        kd_loss, n_agree = self.compare(model, lprobs, target, sample["net_input"])
        gold_loss = target_loss
        if self.gold_weight > 0 and "gold" in sample:
            gold_loss = self.gold_loss(model, encoder_outputs[-1], sample["gold"])

        a, g = self.cfg.kd_alpha, self.gold_weight
        terms = [((1 - g) * (1 - a), target_loss), ((1 - g) * a, kd_loss), (g, gold_loss)]
        # What has no weight is left out: for an impossible target, 0 * inf would be NaN.
        loss = sum(weight * term for weight, term in terms if weight > 0)

        n_sentences = sample["target"].size(0)
        sample_size = n_sentences if self.cfg.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": loss.data,
            "nll_loss": nll_loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": n_sentences,
            "sample_size": sample_size,
        }
        if self.uses_teacher:
            logging_output.update(kd_loss=kd_loss.data, n_agree=n_agree)
        if self.cfg.report_accuracy:
            counts = target.ne(self.padding_idx)
            correct = lprobs.argmax(-1).eq(target) & counts
            logging_output.update(n_correct=correct.sum(), total=counts.sum())
        return loss, sample_size, logging_output

    def positions(self, model, net_output, sample):
        """(batch * length, vocab) log-probabilities and (batch * length,) targets."""
        model = unwrapped(model)
        lprobs = model.get_normalized_probs(net_output, log_probs=True)
        target = model.get_targets(sample, net_output)
        return lprobs.view(-1, lprobs.size(-1)), target.view(-1)

    def nll(self, lprobs, target):
        """fairseq's own label-smoothed and plain NLL of the target, summed, in nats."""
        epsilon = self.cfg.label_smoothing
        smoothed, nll_loss = label_smoothed_nll_loss(
            lprobs, target, epsilon, ignore_index=self.padding_idx
        )
        # Unsmoothed, fairseq adds 0 * sum(lprobs), which is NaN for an impossible symbol.
        return (smoothed if epsilon > 0 else nll_loss), nll_loss

    def compare(self, model, lprobs, target, net_input):
        """T^2 * D summed over target positions, and where the top tokens agree.

        The factor keeps the gradient's size independent of T (Hinton et al. 2015,
        arXiv 1503.02531, section 2.1).

        Returns:
            two scalars: nats, and a number of positions
        """
        teacher = self.teacher(model, lprobs.device) if self.uses_teacher else None
        if teacher is None:
            return lprobs.new_zeros(()), lprobs.new_zeros(())
        teacher_lprobs = teacher.lprobs(net_input).view_as(lprobs)
        temperature = self.cfg.kd_temperature
        divergence = self.divergence(
            tempered(lprobs, temperature), tempered(teacher_lprobs, temperature)
        )
        # Padding is left out only here: picking rows of the vocabulary's width costs more.
        counts = target.ne(self.padding_idx)
        agree = same_top(lprobs, teacher_lprobs) & counts
        return temperature**2 * divergence[counts].sum(), agree.sum()

    def teacher(self, model, device):
        """The teacher, loaded at the first call; None if validation has to do without."""
        if self._teacher is None and (self.training or not self._teacher_is_missing):
            dtype = next(model.parameters()).dtype
            try:
                self._teacher = shared_teacher(
                    self.cfg.teacher_path, self.task, self.cfg.teacher_data, device, dtype
                )
            except FileNotFoundError as error:
                if self.training:
                    raise
                self._teacher_is_missing = True
                logger.warning("validating without a teacher, kd_loss is 0: %s", error)
        return self._teacher

    def gold_loss(self, model, encoder_out, gold):
        """The NLL of gold targets whose sentences the encoder has already read.

        Only the decoder runs again, and outside the wrapper of data-parallel training:
        calling the wrapper's module twice would leave gradients unsynchronised, while
        both decoder passes hang on the one forward that went through the wrapper.
        """
        net_output = unwrapped(model).decoder(
            gold["prev_output_tokens"], encoder_out=encoder_out
        )
        return self.nll(*self.positions(model, net_output, gold))[0]

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        """Log what stock label_smoothed_cross_entropy logs, and kd_loss and agreement.

        Losses are in bits a token; agreement is the share, in percent, of target
        positions where student and teacher have the same most probable token.
        """
        LabelSmoothedCrossEntropyCriterion.reduce_metrics(logging_outputs)
        if not any("kd_loss" in log for log in logging_outputs):
            return
        n_tokens = sum(log.get("ntokens", 0) for log in logging_outputs)
        kd_loss = sum(log.get("kd_loss", 0) for log in logging_outputs)
        n_agree = sum(log.get("n_agree", 0) for log in logging_outputs)
        kd_bits = kd_loss / n_tokens / math.log(2)
        metrics.log_scalar("kd_loss", kd_bits, n_tokens, round=3)
        metrics.log_scalar("agreement", 100.0 * n_agree / n_tokens, n_tokens, round=2)

    @staticmethod
    def logging_outputs_can_be_summed():
        """All logged values are sums, so fairseq may add them up across workers."""
        return True


def same_top(lprobs, teacher_lprobs):
    """(positions,) True where the teacher's most probable token is the student's too."""
    teachers_top = teacher_lprobs.argmax(-1, keepdim=True)
    return lprobs.gather(-1, teachers_top).squeeze(-1) == lprobs.amax(-1)


def unwrapped(model):
    """The student itself, whatever data-parallel wrappers it is in."""
    while hasattr(model, "module"):
        model = model.module
    return model


@contextlib.contextmanager
def encoder_outputs_of(model):
    """Catch what the encoder (if there is one) returns while the model runs."""
    caught = []
    encoder = getattr(unwrapped(model), "encoder", None)
    if encoder is None:
        yield caught
        return
    hook = encoder.register_forward_hook(lambda *call: caught.append(call[-1]))
    try:
        yield caught
    finally:
        hook.remove()
