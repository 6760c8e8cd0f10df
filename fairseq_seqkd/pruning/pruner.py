"""Prunes a model while it is trained, and keeps what was pruned at zero."""

import atexit
import logging

from fairseq_seqkd.models.adapters import unwrapped
from fairseq_seqkd.models.checkpoints import checkpoint_paths, load_state
from fairseq_seqkd.models.parameters import fraction_of_zeros, nonzero, parameters_of
from fairseq_seqkd.pruning.masks import mask_gradients, mask_weights
from fairseq_seqkd.pruning.report import table
from fairseq_seqkd.pruning.schemes import Scheme
from fairseq_seqkd.pruning.weights import Weights

logger = logging.getLogger(__name__)


class Pruner:
    """Prunes by a schedule. It has no state but the update number and the model's zeros.

    Args:
        sparsity: the share of the weights (of heads or units, if the scheme takes those)
            that is zero at the end
        scheme: a name of the axis SCHEMES
        schedule: called with the updates done, gives the share of ``sparsity`` in force
        skip: see `Weights`
        teacher_path: checkpoints whose size the model's is compared with, if given
    """

    def __init__(self, sparsity, scheme, schedule, skip=None, teacher_path=None):
        self.sparsity = sparsity
        self.scheme_name = scheme
        self.schedule = schedule
        self.skip = skip
        self.teacher_path = teacher_path
        self.log = {}  # what there is to log, by name
        self._model = None
        self._dead = None
        self._update = None

    def begin(self, model):
        """Look at the model that training begins with, or goes on with.

        Raises:
            ValueError: nothing of it can be pruned, or more is pruned already than is asked for
        """
        self._open(model)
        self.scheme.refuse_sparsity(self.sparsity, "--prune-sparsity")
        self._count()

    def _open(self, model):
        model = unwrapped(model)
        if model is self._model:
            return
        heads = {n: m.num_heads for n, m in model.named_modules() if hasattr(m, "num_heads")}
        self.parameters = parameters_of(dict(model.named_parameters()))
        self.weights = Weights(self.parameters, self.skip, heads.get)
        self.scheme = Scheme(self.scheme_name, self.weights)
        if self._model is None and logger.isEnabledFor(logging.INFO):
            atexit.register(self._report)  # fairseq tells nobody when training ends
        self._model = model

    def before_step(self, model, optimizer, update):
        """Prune, if it is time to; called before every batch, several times an update or once.

        Args:
            optimizer: fairseq's
            update: updates done
        """
        self._open(model)
        share = self.schedule(update)
        # A resumed model has been pruned before, which changes nothing, or was not to be.
        before = 0 if self._update is None else self.schedule(update - 1)
        if update != self._update and share > before:
            self._prune(optimizer, share * self.sparsity)
            self._count()
            logger.info("pruned after %d updates: %s", update, self._one_line())
        self._update = update
        if self._dead is None:
            self._dead = self.scheme.dead()

    def _prune(self, optimizer, sparsity):
        mask_weights(self.scheme.masks(sparsity), self.parameters, optimizer)
        self._dead = None

    def after_backward(self):
        """Called after every backward pass."""
        mask_gradients(self._dead, self.parameters)

    def after_step(self, optimizer):
        """Called after the optimizer's step."""
        mask_weights(self._dead, self.parameters, optimizer)
        self._dead = None

    def _count(self):
        self.log = {
            "sparsity": 100 * fraction_of_zeros(self.weights.matrices),
            "nonzero": nonzero(self.parameters),
        }

    def _one_line(self):
        classes = self.weights.classes.items()
        each = [f"{name} {100 * fraction_of_zeros(members):.1f}" for name, members in classes]
        return (
            f"{self.scheme.describe()} (weights by layer: {', '.join(each)}), "
            f"{self.log['nonzero']:,} parameters are not"
        )

    def _report(self):
        if self._update is not None and self.schedule(self._update) < 1:
            logger.warning(
                "training ended after %d updates, before all that --prune-sparsity %s asks for "
                "was pruned: expected an earlier --prune-end-update, or a longer training",
                self._update + 1,
                self.sparsity,
            )
        teacher = None if self.teacher_path is None else nonzero_of(self.teacher_path)
        logger.info("parameters:\n%s", table(self.parameters, teacher))


def nonzero_of(path):
    """The non-zero parameters of the checkpoints that a path names; None if they are gone."""
    try:
        paths = checkpoint_paths(path)
        return sum(nonzero(parameters_of(load_state(one)["model"])) for one in paths)
    except (OSError, ValueError):
        return None
