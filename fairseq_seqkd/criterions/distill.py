"""The general criterion. With t the target that stands in the batch, D the divergence,
w its weighting, a = ``--kd-alpha`` and g = ``--gold-weight``:

    loss = (1 - g) * [(1 - a) * NLL(t) + a * w * T^2 * D(teacher_T, student_T)] + g * NLL(gold)

summed over target tokens. A row that the student wrote has no target to learn from: there
a is 1. Each published method is a choice of these flags; the presets beside this file only
change defaults.
"""

import contextlib
import logging
import math

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    label_smoothed_nll_loss,
)
from fairseq.logging import metrics

from fairseq_seqkd.criterions.config import (
    AXES,
    DistillConfig,
    check_combination,
    check_config,
)
from fairseq_seqkd.distribution import (
    LEFTOVER,
    tempered,
    top_k,
    top_k_and_rest,
    whole_vocabulary,
)
from fairseq_seqkd.objectives.axis import refuse_unused
from fairseq_seqkd.objectives.divergences import DIVERGENCES
from fairseq_seqkd.objectives.statistics import Statistics
from fairseq_seqkd.objectives.weighting import WEIGHTINGS
from fairseq_seqkd.prefixes import PREFIXES, Step
from fairseq_seqkd.teacher import shared_teacher

logger = logging.getLogger(__name__)


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

    # What a method takes where the configuration says nothing of an axis's parameter.
    preset = {}

    def __init__(self, task, cfg):
        super().__init__(task)
        check_config(cfg)
        self.cfg = cfg
        self.kd_targets = str(cfg.kd_targets)
        self.gold_weight = cfg.gold_weight
        self._choose(cfg)
        self._teacher = None  # no module, so fairseq neither saves nor trains it
        self._teacher_is_missing = False
        if self.kd_targets != "gold" and not hasattr(task, "use_targets"):
            raise ValueError(
                f"--kd-targets {self.kd_targets} needs pseudo-targets, and the task "
                f"{type(task).__name__} has none: use --task translation_seqkd with "
                "--pseudo-targets DIR, or train on a store's data-bin with "
                "--kd-targets gold"
            )

    def _choose(self, cfg):
        """Take from every axis what the configuration names."""
        names = {axis: str(cfg[axis.name]) for axis in AXES}
        own_divergence = str(cfg.kd_own_divergence or cfg.kd_divergence)
        settings = {name: cfg.get(name) for axis in AXES for name in axis.parameters()}
        for name, value in self.preset.items():
            settings[name] = value if settings[name] is None else settings[name]
        self.prefixes = PREFIXES.choose(names[PREFIXES], settings)()
        self.divergence = DIVERGENCES.choose(names[DIVERGENCES], settings)
        self.own_divergence = DIVERGENCES.choose(own_divergence, settings)
        self.weighting = WEIGHTINGS.choose(names[WEIGHTINGS], settings)
        self.leftover = LEFTOVER.choose(str(cfg.kd_leftover or "tail"), settings)
        self.uses_teacher = self.prefixes.writes or (cfg.gold_weight < 1 and cfg.kd_alpha > 0)
        chosen = list(names.items()) if self.uses_teacher else [(PREFIXES, names[PREFIXES])]
        if cfg.kd_own_divergence is not None:
            chosen.append((DIVERGENCES, own_divergence))
        refuse_unused(AXES, chosen, settings, given=cfg)
        check_combination(cfg, self.uses_teacher, self.prefixes)

    def forward(self, model, sample, reduce=True):
        """The summed loss of a batch, in nats, its sample size and what is logged.

        Args:
            model: the student
            sample: a batch as the task collates it; with a ``gold`` entry
                (``target``, ``prev_output_tokens``) when ``target`` is a pseudo-target
            reduce: fairseq's argument; the loss is always summed
        """
        teacher = self.teacher(model, sample["target"].device) if self.uses_teacher else None
        sample, own, prefix_log = self.prefixes(
            sample, unwrapped(model), teacher, self.task.target_dictionary, self.step()
        )
        with encoder_outputs_of(model) as encoder_outputs:
            net_output = model(**sample["net_input"])
        lprobs, target = self.positions(model, net_output, sample)
        labels = target.masked_fill(own.unsqueeze(-1), self.padding_idx)
        target_loss, nll_loss = self.nll(lprobs, labels)
        kd_loss, kd_log = self.compare(lprobs, target, own, teacher, sample["net_input"])
        gold_loss = target_loss
        if self.gold_weight > 0 and "gold" in sample:
            gold_loss = self.gold_loss(model, encoder_outputs[-1], sample["gold"])

        a, g = self.cfg.kd_alpha, self.gold_weight
        terms = [((1 - g) * (1 - a), target_loss), (1 - g, kd_loss), (g, gold_loss)]
        # What has no weight is left out: for an impossible target, 0 * inf would be NaN.
        loss = sum(weight * term for weight, term in terms if weight > 0)
        sample_size = len(target) if self.cfg.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": loss.data,
            "nll_loss": nll_loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": len(target),
            "sample_size": sample_size,
            **(kd_log if self.uses_teacher else {}),
            **prefix_log,
            **self.counted(lprobs, labels),
        }
        return loss, sample_size, logging_output

    def counted(self, lprobs, labels):
        """What is counted of positions with a data target, (batch, length) ``labels``."""
        is_labelled = labels.view(-1).ne(self.padding_idx)
        counts = {"n_labelled": is_labelled.sum()} if self.prefixes.writes else {}
        if self.cfg.report_accuracy:
            correct = lprobs.argmax(-1).eq(labels.view(-1)) & is_labelled
            counts.update(n_correct=correct.sum(), total=is_labelled.sum())
        return counts

    def step(self):
        """Where training is; None in validation.

        The trainer seeds torch with the seed plus the updates done, under any task and
        after a resume, where its own count of updates is not to be had.
        """
        if not self.training:
            return None
        update = torch.initial_seed() - self.cfg.seed
        n_updates = self.cfg.max_update
        progress = min(update / n_updates, 1.0) if n_updates > 0 else None
        return Step(self.cfg.seed, update, progress)

    def positions(self, model, net_output, sample):
        """(batch * length, vocab) log-probabilities and (batch, length) targets."""
        model = unwrapped(model)
        lprobs = model.get_normalized_probs(net_output, log_probs=True).float()
        return lprobs.view(-1, lprobs.size(-1)), model.get_targets(sample, net_output)

    def nll(self, lprobs, target):
        """fairseq's own label-smoothed and plain NLL of the target, summed, in nats."""
        epsilon = self.cfg.label_smoothing
        smoothed, nll_loss = label_smoothed_nll_loss(
            lprobs, target.view(-1), epsilon, ignore_index=self.padding_idx
        )
        # Unsmoothed, fairseq adds 0 * sum(lprobs), which is NaN for an impossible symbol.
        return (smoothed if epsilon > 0 else nll_loss), nll_loss

    def compare(self, lprobs, target, own, teacher, net_input):
        """The divergence's term of the loss, a * w * T^2 * D summed, and what is logged of D.

        The factor T^2 keeps the gradient's size independent of T (Hinton et al. 2015,
        arXiv 1503.02531, section 2.1).

        Args:
            lprobs: (batch * length, vocab) the student's
            target: (batch, length) symbols
            own: (batch,) True for rows that the student wrote
        Returns:
            a scalar in nats, and sums over target positions, whatever their share in the loss
        """
        if teacher is None:
            zero = lprobs.new_zeros(())
            return zero, dict.fromkeys(("kd_loss", "n_agree", "teacher_entropy"), zero)
        teacher_lprobs = teacher.lprobs(net_input).view_as(lprobs)
        outcomes = self.outcomes(lprobs, teacher_lprobs, target.view(-1))
        counts = target.ne(self.padding_idx)
        # Batch statistics are of the positions with a share in the loss, if there are any.
        compared = counts & (own.unsqueeze(-1) | (self.cfg.kd_alpha > 0))
        facts = Statistics(outcomes, lprobs, target, compared if compared.any() else counts)
        own = own.unsqueeze(-1).expand_as(target).flatten()
        value = self.divergence(outcomes.student, outcomes.teacher, facts=facts)
        if self.cfg.kd_own_divergence is not None:
            on_own = self.own_divergence(outcomes.student, outcomes.teacher, facts=facts)
            value = torch.where(own, on_own, value)
        value = self.cfg.kd_temperature**2 * value
        share = self.weighting(facts=facts) * own.float().clamp(min=self.cfg.kd_alpha)
        # Positions are left out only here: picking rows of the vocabulary's width costs more.
        has_share, counts = (share > 0) & facts.counts, counts.flatten()
        with torch.no_grad():
            agree = same_top(lprobs, outcomes.top_symbol)
            log = {
                "kd_loss": value[counts].sum(),
                "n_agree": agree[counts].sum(),
                "teacher_entropy": facts.teacher_entropy[counts].sum(),
            }
        return (share * value)[has_share].sum(), log

    def outcomes(self, lprobs, teacher_lprobs, target):
        """Both distributions over the outcomes that are compared, tempered."""
        temperature = self.cfg.kd_temperature
        both = tempered(lprobs, temperature), tempered(teacher_lprobs, temperature)
        if self.cfg.kd_top_k is None:
            return whole_vocabulary(*both, target)
        return top_k_and_rest(both[0], top_k(both[1], self.cfg.kd_top_k), target, self.leftover)

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
        """Log what stock label_smoothed_cross_entropy logs, and what the teacher's part was.

        Losses and entropies are in bits a token. The NLL and what follows from it are of
        rows with data targets.
        """
        total = Totals(logging_outputs)
        labelled = [
            {**log, "ntokens": log.get("n_labelled", log.get("ntokens", 0))}
            for log in logging_outputs
        ]
        if sum(log["ntokens"] for log in labelled) > 0:
            LabelSmoothedCrossEntropyCriterion.reduce_metrics(labelled)
        else:
            total.log("loss", "loss", "sample_size", 1 / math.log(2))
        total.log("kd_loss", "kd_loss", "ntokens", 1 / math.log(2))
        total.log("agreement", "n_agree", "ntokens", 100)
        total.log("teacher_entropy", "teacher_entropy", "ntokens", 1 / math.log(2))
        total.log("beta", "beta", "nsentences")
        total.log("own_rows", "n_own_rows", "nsentences", 100)
        total.log("own_length", "n_own_tokens", "n_own_rows")
        total.log("accepted", "n_accepted", "n_proposed", 100)

    @staticmethod
    def logging_outputs_can_be_summed():
        """All logged values are sums, so fairseq may add them up across workers."""
        return True


class Totals:
    """Sums of what several steps or workers logged."""

    def __init__(self, logging_outputs):
        self._logs = logging_outputs

    def log(self, name, key, weight, unit=1.0):
        """Log sum(key) / sum(weight) in the given unit; nothing, if no step has the key."""
        if not any(key in log for log in self._logs):
            return
        value, n = (sum(log.get(k, 0) for log in self._logs) for k in (key, weight))
        metrics.log_scalar(name, unit * value / n if n > 0 else 0.0, n, round=3)


def same_top(lprobs, teachers_top):
    """(positions,) True where the teacher's most probable symbol is the student's too."""
    return lprobs.gather(-1, teachers_top.unsqueeze(-1)).squeeze(-1) == lprobs.amax(-1)


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
