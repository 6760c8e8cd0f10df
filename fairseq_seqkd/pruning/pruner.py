"""Prunes a model during training by a schedule, and keeps pruned weights at zero."""

import atexit
import logging

from fairseq_seqkd.models.adapters import unwrapped
from fairseq_seqkd.models.checkpoints import checkpoint_paths, load_state
from fairseq_seqkd.models.parameters import count_nonzero, fraction_of_zeros, parameters_of
from fairseq_seqkd.pruning.masks import mask_gradients, mask_weights
from fairseq_seqkd.pruning.report import sparsity_table
from fairseq_seqkd.pruning.schemes import Scheme
from fairseq_seqkd.pruning.weights import Weights

logger = logging.getLogger(__name__)


class Pruner:
    """The pruning steps of a training loop. It has no state but the zeros of the model.

    Args:
        sparsity: the final fraction of weights (of heads or units, if the scheme prunes those)
            that is zero
        scheme: option of the axis SCHEMES
        schedule: function from the number of updates done to the fraction of ``sparsity`` that
            is in force
        skip: see `Weights`
        teacher_path: checkpoints to compare the model's size with, or None

    Attributes:
        log: {key: value} to be logged
    """

    def __init__(self, sparsity, scheme, schedule, skip=None, teacher_path=None):
        self.sparsity = sparsity
        self.scheme_name = scheme
        self.schedule = schedule
        self.skip = skip
        self.teacher_path = teacher_path
        self.log = {}
        self._model = None
        self._masks = None
        self._update = None

    def begin(self, model):
        """Check the model before training begins or continues.

        Raises:
            ValueError: it cannot be pruned, or is sparser than requested
        """
        self._attach(model)
        self.scheme.refuse_sparsity(self.sparsity, "--prune-sparsity")
        self._count()

    def _attach(self, model):
        model = unwrapped(model)
        if model is self._model:
            return
        heads = {n: m.num_heads for n, m in model.named_modules() if hasattr(m, "num_heads")}
        self.parameters = parameters_of(dict(model.named_parameters()))
        self.weights = Weights(self.parameters, self.skip, heads.get)
        self.scheme = Scheme(self.scheme_name, self.weights)
        if self._model is None and logger.isEnabledFor(logging.INFO):
            atexit.register(self._report)  # fairseq has no hook for the end of training
        self._model = model

    def before_step(self, model, optimizer, update):
        """Prune if the schedule says so. Called before every batch, so maybe often per update.

        Args:
            model: the student, possibly wrapped for data-parallel training
            optimizer: fairseq's
            update: number of updates done
        """
        self._attach(model)
        fraction = self.schedule(update)
        # After a resume, prune in any case: zeros stay zeros, so it changes nothing unless the
        # pruning flags are new.
        before = 0 if self._update is None else self.schedule(update - 1)
        if update != self._update and fraction > before:
            self._prune(optimizer, fraction * self.sparsity)
            self._count()
            logger.info("pruned after %d updates: %s", update, self._summary())
        self._update = update
        if self._masks is None:
            self._masks = self.scheme.zero_masks()

    def _prune(self, optimizer, sparsity):
        mask_weights(self.scheme.masks(sparsity), self.parameters, optimizer)
        self._masks = None

    def after_backward(self):
        """Mask gradients. Called after every backward pass."""
        mask_gradients(self._masks, self.parameters)

    def after_step(self, optimizer):
        """Mask weights. Called after every step of the optimizer."""
        mask_weights(self._masks, self.parameters, optimizer)
        self._masks = None

    def _count(self):
        self.log = {
            "sparsity": 100 * fraction_of_zeros(self.weights.matrices),
            "nonzero": count_nonzero(self.parameters),
        }

    def _summary(self):
        classes = self.weights.classes.items()
        each = [f"{name} {100 * fraction_of_zeros(members):.1f}" for name, members in classes]
        return (
            f"{self.scheme.describe()} (weights by layer: {', '.join(each)}), "
            f"{self.log['nonzero']:,} non-zero parameters left"
        )

    def _report(self):
        if self._update is not None and self.schedule(self._update) < 1:
            logger.warning(
                "training ended after %d updates, before all that --prune-sparsity %s asks for "
                "was pruned: expected an earlier --prune-end-update, or a longer training",
                self._update + 1,
                self.sparsity,
            )
        nonzero = (
            None if self.teacher_path is None else nonzero_in_checkpoints(self.teacher_path)
        )
        logger.info("parameters:\n%s", sparsity_table(self.parameters, nonzero))


def nonzero_in_checkpoints(path):
    """Count the non-zero parameters of an ensemble's checkpoints; None if a file is missing."""
    try:
        states = map(load_state, checkpoint_paths(path))
        return sum(count_nonzero(parameters_of(state["model"])) for state in states)
    except (OSError, ValueError):
        return None
