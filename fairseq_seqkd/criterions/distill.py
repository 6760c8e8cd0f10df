"""The general criterion. With t the target that stands in the batch, D the divergence,
w its weighting, a = ``--kd-alpha`` and g = ``--gold-weight``:

    loss = (1 - g) * [(1 - a) * NLL(t) + a * w * T^2 * D(teacher_T, student_T)] + g * NLL(gold)

summed over target tokens. A row that the student wrote has no target to learn from: there
a is 1. Each published method is a choice of these flags; the presets beside this file only
change defaults.
"""

import logging
import math

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
)
from fairseq.logging import metrics

from fairseq_seqkd.cache.lookup import CachedRows
from fairseq_seqkd.checkpoints import sums_of_checkpoints
from fairseq_seqkd.criterions.config import (
    AXES,
    DistillConfig,
    check_combination,
    check_config,
    check_head,
)
from fairseq_seqkd.distribution import LEFTOVER, NoTeacher, TopKAndRest, WholeVocabulary
from fairseq_seqkd.models import encoder_outputs_of, logits_of, unwrapped
from fairseq_seqkd.objectives.axis import refuse_unused
from fairseq_seqkd.objectives.chunks import only, weighted_sum
from fairseq_seqkd.objectives.divergences import DIVERGENCES
from fairseq_seqkd.objectives.statistics import AtPositions, Statistics
from fairseq_seqkd.objectives.weighting import WEIGHTINGS
from fairseq_seqkd.prefixes import PREFIXES, Step
from fairseq_seqkd.teacher import dtype_beside, shared_teacher

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

    stock_name = (
        "label_smoothed_cross_entropy"  # what an exported student's criterion is called
    )

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
        self._cache = None
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
        self.check_k(cfg.kd_top_k, "--kd-top-k is")

    def forward(self, model, sample, reduce=True):
        """The summed loss of a batch, in nats, its sample size and what is logged.

        Args:
            model: the student
            sample: a batch as the task collates it; with a ``gold`` entry
                (``target``, ``prev_output_tokens``) when ``target`` is a pseudo-target
            reduce: fairseq's argument; the loss is always summed
        """
        student = unwrapped(model)
        teacher = self.teacher(student, sample["target"].device)
        sample, own, prefix_log = self.prefixes(
            sample, student, teacher, self.task.target_dictionary, self.step()
        )
        # Before the student runs: a GPU would have to be waited for afterwards.
        space = self.space(teacher, sample)
        with encoder_outputs_of(model) as encoder_outputs:
            net_output = model(**sample["net_input"])
        target = student.get_targets(sample, net_output)
        gold = sample.get("gold") if self.gold_weight > 0 else None
        a, g = self.cfg.kd_alpha, self.gold_weight
        loss, log = self.token_loss(
            logits_of(student, net_output),
            target,
            own,
            space,
            nll_weight=(1 - g) * (1 - a) + (g if gold is None else 0),
        )
        if gold is not None:
            loss = loss + self.gold_loss(student, encoder_outputs[-1], gold)

        sample_size = len(target) if self.cfg.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": len(target),
            "sample_size": sample_size,
            **log,
            **prefix_log,
        }
        return loss, sample_size, logging_output

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

    def space(self, teacher, sample):
        """What compares the student with the teacher at every position of a batch."""
        k, temperature = self.cfg.kd_top_k, self.cfg.kd_temperature
        if self.uses_cache:
            top, known = self.cache.top_k(sample, self.padding_idx)
            return TopKAndRest(top.first(k or self.cache.k), self.leftover, temperature, known)
        if teacher is None:
            return NoTeacher()
        scores = teacher.scores(sample["net_input"])
        if k is None:
            return WholeVocabulary(scores.logits, temperature)
        return TopKAndRest(scores.top_k(k, temperature), self.leftover, temperature)

    @property
    def uses_cache(self):
        """Whether a cache stands in for the teacher: in training, since it is of that split."""
        return self.uses_teacher and self.training and self.cfg.kd_cache is not None

    @property
    def cache(self):
        """The cache, opened at the first call; see :class:`CachedRows` for what is raised."""
        if self._cache is None:
            path, train_subset = self.cfg.teacher_path, self.cfg.train_subset
            expected = {
                "temperature": float(self.cfg.kd_temperature),
                "teacher": None if path is None else sums_of_checkpoints(path),
                "data": {"split": train_subset},
            }
            self._cache = CachedRows(self.cfg.kd_cache, self.task, expected)
            if (self.cfg.kd_top_k or 0) > self._cache.k:
                raise ValueError(
                    f"--kd-top-k is {self.cfg.kd_top_k}, but the cache {self.cfg.kd_cache!r} "
                    f"has the top {self._cache.k}: expected that or less, or another cache."
                )
            self.check_k(self.cfg.kd_top_k or self._cache.k, "--kd-cache has the top")
        return self._cache

    def check_k(self, k, where):
        """Refuse k symbols for a divergence that looks further; see :func:`check_head`."""
        for divergence in (self.divergence, self.own_divergence):
            check_head(divergence, k, where)

    def token_loss(self, logits, target, own, space, nll_weight):
        """The loss at the positions of one forward pass.

        Args:
            logits: (batch, length, vocab) the student's
            target: (batch, length) symbols
            own: (batch,) True for rows that the student wrote
            space: what compares student and teacher, see :meth:`space`
            nll_weight: of the NLL of targets that the student did not write
        Returns:
            a scalar in nats; and sums for logging, over target positions whatever their
            share in the loss
        """
        logits, symbols = logits.reshape(-1, logits.size(-1)), target.flatten()
        counts = target.ne(self.padding_idx)
        labelled = (counts & ~own.unsqueeze(-1)).flatten()
        counts = counts if space.known is None else space.known
        facts = self.facts(space, logits, target, own, counts)
        own = own.unsqueeze(-1).expand_as(target).flatten()

        def values_of(chunk, rows):
            compared = space.compare(chunk, symbols[rows], rows)
            values = {"target": compared.target_lprobs, "vocabulary": compared.summed_lprobs}
            if compared.outcomes is not None:
                here = AtPositions(facts, compared.outcomes)
                values["kd_loss"] = self.divergence_of(compared.outcomes, here, own[rows])
                values["n_agree"] = compared.outcomes.agrees
                values["teacher_entropy"] = here.teacher_entropy
            if self.cfg.report_accuracy:
                values["n_correct"] = chunk.argmax(-1) == symbols[rows]
            return values

        weights = self.nll_weights(nll_weight * labelled, logits.size(-1)) if nll_weight else {}
        if not isinstance(space, NoTeacher):
            weights["kd_loss"] = self.share(facts, own) * counts.flatten()
        loss, values = weighted_sum(values_of, weights, logits)
        return loss, self.log_of(values, labelled, counts.flatten())

    def facts(self, space, logits, target, own, counts):
        """Statistics of the positions with a share in the loss, or of all if there is none."""
        compared = counts & (own.unsqueeze(-1) | (self.cfg.kd_alpha > 0))
        return Statistics(space, logits, target, compared if compared.any() else counts)

    def share(self, facts, own):
        """(positions,) what the divergence is multiplied by."""
        alpha = own.float().clamp(min=self.cfg.kd_alpha)
        return (1 - self.gold_weight) * self.weighting(facts=facts) * alpha

    def nll_weights(self, weight, vocab):
        """What makes the label-smoothed NLL of log-probabilities, as fairseq defines it.

        Every symbol but the target has epsilon / (vocab - 1).

        Args:
            weight: (positions,) of the NLL
        Returns:
            (positions,) weights of the target's log-probability and of the vocabulary's sum,
            which has none without smoothing, since an impossible symbol makes it infinite
        """
        epsilon = self.cfg.label_smoothing
        share = epsilon / (vocab - 1)
        weights = {"target": -(1 - epsilon - share) * weight}
        if epsilon > 0:
            weights["vocabulary"] = -share * weight
        return weights

    def divergence_of(self, outcomes, facts, own):
        """(positions,) T^2 D in nats.

        The factor T^2 keeps the gradient's size independent of T (Hinton et al. 2015,
        arXiv 1503.02531, section 2.1).

        Args:
            outcomes, facts: at some positions
            own: (positions,) True in rows that the student wrote
        """
        both = outcomes.student, outcomes.teacher
        value = self.divergence(*both, facts=facts)
        if self.cfg.kd_own_divergence is not None:
            value = torch.where(own, self.own_divergence(*both, facts=facts), value)
        return self.cfg.kd_temperature**2 * value

    def log_of(self, values, labelled, counts):
        """Sums for logging.

        Args:
            values: (positions,) tensors by name
            labelled, counts: (positions,) True at data targets, and at any target
        """
        log = {"nll_loss": -only(labelled, values["target"])}
        if self.uses_teacher:
            for name in ("kd_loss", "n_agree", "teacher_entropy"):
                log[name] = only(counts, values.get(name, torch.zeros_like(values["target"])))
        if self.prefixes.writes:
            log["n_labelled"] = labelled.sum()
        if self.cfg.report_accuracy:
            log.update(n_correct=only(labelled, values["n_correct"]), total=labelled.sum())
        return log

    def teacher(self, model, device):
        """The teacher, loaded at the first call; None where there is none to ask.

        That is where nothing is compared, where a cache stands in for it, and in a validation
        without its checkpoint.
        """
        path, data = self.cfg.teacher_path, self.cfg.teacher_data
        if not self.uses_teacher or self.uses_cache or path is None:
            return None
        if self._teacher is None and (self.training or not self._teacher_is_missing):
            try:
                self._teacher = shared_teacher(
                    path, self.task, data, device, dtype_beside(model, self.cfg)
                )
            except FileNotFoundError as error:
                if self.training:
                    raise
                self._teacher_is_missing = True
                logger.warning("validating without a teacher, kd_loss is 0: %s", error)
        return self._teacher

    def gold_loss(self, student, encoder_out, gold):
        """The NLL of gold targets whose sentences the encoder has already read.

        Only the decoder runs again, and outside the wrapper of data-parallel training:
        calling the wrapper's module twice would leave gradients unsynchronised, while
        both decoder passes hang on the one forward that went through the wrapper.
        """
        net_output = student.decoder(gold["prev_output_tokens"], encoder_out=encoder_out)
        target = student.get_targets(gold, net_output)
        none_own = torch.zeros_like(target[:, 0], dtype=torch.bool)
        logits = logits_of(student, net_output)
        return self.token_loss(logits, target, none_own, NoTeacher(), self.gold_weight)[0]

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
