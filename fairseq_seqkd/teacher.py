"""The teacher: a frozen fairseq model, or an ensemble whose probabilities are averaged.

It is no ``nn.Module`` on purpose: fairseq saves, casts, optimises and switches to train mode
every sub-module of a criterion.
"""

import itertools
import logging
import math
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Optional

import torch
from fairseq import utils
from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from fairseq_seqkd.decoding.sampling import SeededSampling
from fairseq_seqkd.losses.blockwise_sum import position_slices
from fairseq_seqkd.losses.support import TopK, top_k
from fairseq_seqkd.models.adapters import DTYPES, can_encode_once, encode, features_of
from fairseq_seqkd.models.loading import load_models

logger = logging.getLogger(__name__)


@dataclass
class TeacherConfig(FairseqDataclass):
    """The flags that name the teacher; criterion and task have the same ones."""

    teacher_path: Optional[str] = field(
        default=None,
        metadata={
            "help": "the teacher's checkpoint; several separated by colons are averaged "
            "as probabilities"
        },
    )
    teacher_data: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder with the teacher's dictionaries (default: beside the "
            "checkpoint, else where its training data was)"
        },
    )
    teacher_dtype: Optional[ChoiceEnum(list(DTYPES))] = field(
        default=None,
        metadata={"help": "how the teacher computes (default: like the student)"},
    )


def teacher_dtype_of(student, cfg):
    """The dtype of a student's teacher: that of ``--teacher-dtype``, or the student's."""
    if cfg.teacher_dtype is not None:
        return DTYPES[str(cfg.teacher_dtype)]
    return next(student.parameters()).dtype


class Teacher:
    """A frozen model: scores prefixes, generates hypotheses.

    Args:
        models: fairseq models that share their dictionaries; their probabilities are averaged
        task: the fairseq task that built them, with their own dictionaries
        knows_dictionary: False if their dictionaries were not found, and the student's took
            their place: comparing the two would prove nothing
        path: the checkpoints that they were loaded from
    """

    def __init__(self, models, task, knows_dictionary=True, path=None):
        self.path = path
        self.models = list(models)
        for model in self.models:
            model.eval()
            # requires_grad stays as it is, and no_grad keeps gradients away: torch folds a
            # transposed batch into one matrix product only for weights that have it, and
            # the output layer is several times slower unfolded.
            model.make_generation_fast_(need_attn=False)  # attention is never used
        self.task = task
        self.knows_dictionary = knows_dictionary
        self._generators = {}
        self._encoded = None

    @property
    def device(self):
        return next(self.models[0].parameters()).device

    @torch.no_grad()
    def logits(self, net_input):
        """The logits of the next token after every prefix of a batch, as `LazyLogits`.

        Args:
            net_input: the arguments of the model's forward, as fairseq collates them
        """
        pairs = zip(self.models, self.encoder_outputs(net_input))
        return LazyLogits([features_of(model, net_input, encoded) for model, encoded in pairs])

    @torch.no_grad()
    def encoder_outputs(self, net_input):
        """Encode a batch once: calls with the same sources reuse the last encoder outputs.

        Args:
            net_input: as for `logits`, or its sources alone
        Returns:
            a list with each model's encoder output; None for a model that cannot be called
            in two parts
        """
        if not any(can_encode_once(model) for model in self.models):
            return [None] * len(self.models)
        sources = net_input["src_tokens"]
        if self._encoded is None or not torch.equal(self._encoded[0], sources):
            self._encoded = sources, [encode(model, net_input) for model in self.models]
        return self._encoded[1]

    def generate(self, net_input, options, ids=None, draw=0):
        """The ``options.nbest`` best finished hypotheses of every sentence.

        Args:
            net_input: ``src_tokens`` (batch, length) and ``src_lengths`` (batch,)
            options: `SearchOptions`
            ids, draw: the seeds of samples, as for `SeededSampling.seed_batch`
        Returns:
            for each sentence its hypotheses, best first: fairseq's dictionaries
            with ``tokens`` (length,) that end in EOS, ``score`` in nats a token, and
            ``finished``: False if it was cut at the longest length, and EOS put there
        """
        generator = self._generator(options)
        if options.sampling:
            generator.search.seed_batch(ids, draw)
        self._set_beam(options.beam)
        found = self.task.inference_step(generator, self.models, {"net_input": net_input})
        self._set_beam(1)
        source_length = net_input["src_tokens"].size(1)
        longest = options.longest(source_length, self.max_target_positions())
        for hypothesis in itertools.chain(*found):
            hypothesis["finished"] = len(hypothesis["tokens"]) <= longest
        return [hypotheses[: options.nbest] for hypotheses in found]

    def _set_beam(self, beam):
        """Tell models that keep a beam size of their own (BART) the one in use."""
        for model in self.models:
            if hasattr(model, "set_beam_size"):
                model.set_beam_size(beam)

    def _generator(self, options):
        if options not in self._generators:
            names = ("beam", "lenpen", "max_len_a", "max_len_b")
            arguments = Namespace(**{name: getattr(options, name) for name in names})
            generator = self.task.build_generator(self.models, arguments)
            if options.sampling:
                generator.search = SeededSampling(self.task.target_dictionary, options)
            self._generators[options] = generator
        return self._generators[options]

    def max_source_positions(self):
        """The longest source, in tokens with EOS, that task and models can take."""
        limits = [model.max_positions() for model in self.models]
        return utils.resolve_max_positions(self.task.max_positions(), *limits)[0]

    def max_target_positions(self):
        """The longest target, in tokens with EOS, that all models can take."""
        return min(model.max_decoder_positions() for model in self.models)

    def check_dictionaries(self, task):
        """Refuse a student whose symbols are not the teacher's.

        Args:
            task: the student's task
        Raises:
            ValueError: names the first index that differs and both symbols
        """
        if not self.knows_dictionary:
            return
        for side in ("source", "target"):
            ours = getattr(self.task, f"{side}_dictionary", None)
            theirs = getattr(task, f"{side}_dictionary", None)
            if ours is not None and theirs is not None:
                _check_same_symbols(side, ours, theirs)


class LazyLogits:
    """A teacher's logits at every position of a batch, computed when they are asked for.

    Args:
        outputs: for each model a pair of (positions, width) features and the output layer, so
            that ``output_layer(features[i])`` are its logits; see `features_of`
    """

    # A matrix product of fewer positions takes as long: all weights are read for it.
    _AT_ONCE = 128

    def __init__(self, outputs):
        self._outputs = outputs
        self._block, self._logits = range(0), None

    def __len__(self):
        return len(self._outputs[0][0])

    def select(self, mask):
        """The logits of the positions where a (positions,) mask is True."""
        return LazyLogits([(one[mask.to(one.device)], layer) for one, layer in self._outputs])

    def at(self, positions):
        """(n, vocab) float32 logits at a slice of positions.

        Of several models, the log of their mean probability. A block of positions is computed
        at once and the last block is kept: ask for slices in ascending order.
        """
        first, last, _ = positions.indices(len(self))
        if not (first in self._block and last <= self._block.stop):
            self._block = range(first, max(last, min(first + self._AT_ONCE, len(self))))
            self._logits = self._compute(slice(self._block.start, self._block.stop))
        return self._logits[first - self._block.start : last - self._block.start]

    @torch.no_grad()
    def _compute(self, positions):
        logits = [layer(features[positions]).float() for features, layer in self._outputs]
        if len(logits) == 1:
            return logits[0]
        lprobs = torch.stack([torch.log_softmax(one, dim=-1) for one in logits])
        return torch.logsumexp(lprobs, dim=0) - math.log(len(logits))

    def top_k(self, k, temperature=1.0):
        """The `TopK` of all positions."""
        vocab = self.at(slice(0, 1)).size(-1)
        slices = position_slices(len(self), vocab, self._outputs[0][0].device)
        parts = [top_k(self.at(positions), k, temperature) for positions in slices]
        return TopK(*(torch.cat(tensors) for tensors in zip(*parts)))


def _check_same_symbols(side, teacher_dict, student_dict):
    if teacher_dict.symbols == student_dict.symbols:
        return
    pairs = zip(teacher_dict.symbols, student_dict.symbols)
    index = next(
        (i for i, (ours, theirs) in enumerate(pairs) if ours != theirs),
        min(len(teacher_dict), len(student_dict)),
    )

    def symbol(dictionary):
        return repr(dictionary[index]) if index < len(dictionary) else "nothing"

    raise ValueError(
        f"the teacher's {side} dictionary ({len(teacher_dict)} symbols) is not the "
        f"student's ({len(student_dict)} symbols): at index {index} the teacher has "
        f"{symbol(teacher_dict)}, the student {symbol(student_dict)}. Distributions "
        "over different symbols cannot be compared. Binarise the student's data with "
        "the teacher's dictionary (fairseq-preprocess --srcdict/--tgtdict), or distil "
        "on text: let fairseq-generate translate the training set with the teacher, "
        "and train on that output as seq_kd does. If this is not the teacher's own "
        "dictionary, name the folder that holds it with --teacher-data."
    )


_LOADED = {}


def shared_teacher(path, student_task, data=None, device="cpu", dtype=torch.float32):
    """The teacher of this process: loaded at the first call, then kept.

    Args as for `load_teacher`.
    """
    key = (path, data, str(device), dtype)
    if key not in _LOADED:
        _LOADED[key] = load_teacher(path, data, device, dtype, student_task)
    _LOADED[key].check_dictionaries(student_task)
    return _LOADED[key]


def check_dtype(device, dtype):
    """Refuse a dtype that this torch cannot compute with on this device.

    Raises:
        ValueError: names the flag
    """
    one = torch.ones(1, 1, device=device, dtype=dtype)
    try:
        torch.nn.functional.layer_norm(one @ one, (1,), one[0], one[0])
    except RuntimeError as error:
        raise ValueError(
            f"--teacher-dtype: torch {torch.__version__} does not compute with {dtype} on "
            f"{device} ({error}). Expected float32 there."
        ) from error


def load_teacher(path, data=None, device="cpu", dtype=torch.float32, student_task=None):
    """Load one or several checkpoints as one frozen model.

    Args:
        device, dtype: of the parameters
        path, data, student_task: as for `load_models`, which also says what is raised
    """
    device = torch.device(device)
    check_dtype(device, dtype)
    # Building a model draws its initial weights: in the middle of a training step that
    # would shift the student's dropout, and a resumed run would not equal an unbroken one.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        models, task, knows_dictionary = load_models(path, data, student_task)
    models = [model.to(device=device, dtype=dtype) for model in models]
    logger.info("teacher: %s on %s, %s", path, device, dtype)
    return Teacher(models, task, knows_dictionary, path)
