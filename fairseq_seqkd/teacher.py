"""The teacher: a frozen fairseq model, or several whose probabilities are averaged.

It is no ``nn.Module`` on purpose: fairseq saves, casts, optimises and switches to
train mode whatever a criterion owns as a sub-module.
"""

import contextlib
import logging
import math
import os
import pickle
import tempfile
from argparse import Namespace
from dataclasses import dataclass

import torch
from fairseq import checkpoint_utils, tasks, utils
from fairseq.data import data_utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf, open_dict

from fairseq_seqkd.compat import LOADS_SAFELY, from_checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchOptions:
    """How hypotheses are searched for; the defaults are fairseq-generate's.

    Attributes:
        beam: hypotheses kept at each step; 1 is greedy decoding
        nbest: hypotheses returned a sentence, at most ``beam``
        lenpen: exponent of the length in the normalised score, < 1 favours short ones
        max_len_a, max_len_b: at most a * (source tokens) + b target tokens
    Raises:
        ValueError: ``nbest`` is below 1 or above ``beam``
    """

    beam: int = 5
    nbest: int = 1
    lenpen: float = 1.0
    max_len_a: float = 0
    max_len_b: int = 200

    def __post_init__(self):
        if not 1 <= self.nbest <= self.beam:
            raise ValueError(
                f"the number of hypotheses kept is {self.nbest} (--teacher-nbest), expected "
                f"from 1 to the beam, which is {self.beam} (--teacher-beam)"
            )


class Teacher:
    """A frozen model: scores prefixes, generates hypotheses.

    Args:
        models: fairseq models that share their dictionaries; their probabilities
            are averaged
        task: the fairseq task of their own that they were built by
        knows_dictionary: False when its dictionary was not found and stands in
            for by the student's, so that a comparison would say nothing
    """

    def __init__(self, models, task, knows_dictionary=True):
        self.models = [model.eval().requires_grad_(False) for model in models]
        self.task = task
        self.knows_dictionary = knows_dictionary
        self._generators = {}

    @property
    def device(self):
        return next(self.models[0].parameters()).device

    @property
    def parameters(self):
        """The number of parameters, each counted once, of all models together."""
        return sum(p.numel() for model in self.models for p in model.parameters())

    @torch.no_grad()
    def lprobs(self, net_input):
        """Log-probabilities of the next token after every prefix of a batch.

        Args:
            net_input: the arguments of the model's forward, as fairseq collates them
        Returns:
            (batch, length, vocab) float32, the log of the models' mean probability
        """
        each = [
            model.get_normalized_probs(model(**net_input), log_probs=True).float()
            for model in self.models
        ]
        if len(each) == 1:
            return each[0]
        return torch.logsumexp(torch.stack(each), dim=0) - math.log(len(each))

    def generate(self, net_input, options):
        """The ``options.nbest`` best finished hypotheses of every sentence.

        Args:
            net_input: ``src_tokens`` (batch, length) and ``src_lengths`` (batch,)
            options: :class:`SearchOptions`
        Returns:
            for each sentence its hypotheses, best first: fairseq's dictionaries
            with ``tokens`` (length,) that end in EOS, and ``score`` in nats a token
        """
        if options not in self._generators:
            arguments = Namespace(**vars(options))
            self._generators[options] = self.task.build_generator(self.models, arguments)
        found = self.task.inference_step(
            self._generators[options], self.models, {"net_input": net_input}
        )
        return [hypotheses[: options.nbest] for hypotheses in found]

    def max_source_positions(self):
        """The longest source, in tokens with EOS, that task and models can take."""
        limits = [model.max_positions() for model in self.models]
        return utils.resolve_max_positions(self.task.max_positions(), *limits)[0]

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

    Args as for :func:`load_teacher`.
    """
    key = (path, data, str(device), dtype)
    if key not in _LOADED:
        _LOADED[key] = load_teacher(path, data, device, dtype, student_task)
    _LOADED[key].check_dictionaries(student_task)
    return _LOADED[key]


def load_teacher(path, data=None, device="cpu", dtype=torch.float32, student_task=None):
    """Load one or several checkpoints as one frozen model.

    Args:
        path: checkpoint file, or several separated by colons
        data: folder with the teacher's dictionaries; None looks beside the first
            checkpoint and then where its training data was
        device, dtype: where and how the parameters are kept
        student_task: tells the languages where the teacher's checkpoint does not; and its
            dictionaries stand in when the teacher's are in none of these places (then
            only the sizes of the embeddings are checked, with a warning)
    Raises:
        FileNotFoundError: a checkpoint is not there, or no dictionary was found
        ValueError: a file is no fairseq checkpoint, holds a pickle that could run
            code, or has other sizes than the dictionary
    """
    device = torch.device(device)
    # Building a model draws its initial weights: in the middle of a training step that
    # would shift the student's dropout, and a resumed run would not equal an unbroken one.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        models, task, knows_dictionary = _load_models(path, data, student_task)
    models = [model.to(device=device, dtype=dtype) for model in models]
    logger.info("teacher: %s on %s, %s", path, device, dtype)
    return Teacher(models, task, knows_dictionary)


def _load_models(path, data, student_task):
    paths = checkpoint_paths(path)
    state = _load_state(paths[0])
    task, knows_dictionary = _own_task(state, paths[0], data, student_task)
    models = [_build_model(state, task, paths[0])]
    models += [_build_model(_load_state(other), task, other) for other in paths[1:]]
    return models, task, knows_dictionary


def checkpoint_paths(path):
    """The checkpoints that a path names, several separated by colons.

    Raises:
        FileNotFoundError: names the first that is not there
    """
    paths = utils.split_paths(path)
    for one in paths:
        if not os.path.isfile(one):
            raise FileNotFoundError(
                f"no checkpoint at {one!r}. Expected a file that fairseq-train wrote "
                "(several are separated by colons)."
            )
    return paths


def _load_state(path):
    try:
        # The teacher's own validation BLEU is not wanted, and might need a tokeniser.
        state = checkpoint_utils.load_checkpoint_to_cpu(path, {"eval_bleu": False})
    except pickle.UnpicklingError as error:
        how = "refused and nothing in it was executed" if LOADS_SAFELY else "not readable"
        raise ValueError(
            f"the checkpoint {path!r} was {how}. Expected a fairseq checkpoint; this file "
            "is none, or holds a pickle that runs code. Take the checkpoint from a source "
            f"you trust. ({error})"
        ) from error
    except (RuntimeError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise _not_a_checkpoint(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(state, dict) or "model" not in state:
        raise _not_a_checkpoint(path, "it holds no model")
    return state


def _not_a_checkpoint(path, found):
    return ValueError(
        f"{path!r} is not a fairseq checkpoint ({found}). Expected a "
        "file that fairseq-train wrote, such as checkpoints/checkpoint_best.pt."
    )


def _config(state):
    if state.get("cfg") is not None:
        return state["cfg"]
    return convert_namespace_to_omegaconf(state["args"])


def _own_config(task):
    """A task's configuration, whether it is of fairseq's new or old kind, or None."""
    return getattr(task, "cfg", None) or getattr(task, "args", None)


def _data_folder(config):
    data = getattr(config, "data", None)
    return utils.split_paths(data)[0] if data else None


def _own_task(state, path, data, student_task):
    """The teacher's task with the teacher's dictionaries, and whether they are its own."""
    config, student = _config(state).task, _own_config(student_task)
    recorded = _data_folder(config)
    beside = os.path.dirname(os.path.abspath(path))
    places = [beside, recorded] if data is None else [data]
    for place in filter(None, places):
        with contextlib.suppress(FileNotFoundError):
            return _setup_task(config, place, student), True
    if data is None and student is not None:
        with contextlib.suppress(FileNotFoundError):
            task = _setup_task(config, _data_folder(student), student)
            logger.warning(
                "the teacher's dictionary was found neither beside %s nor in %s: only the "
                "sizes of its embeddings can be compared with the student's. Name the "
                "folder that has it with --teacher-data.",
                path,
                recorded,
            )
            return task, False
    raise FileNotFoundError(
        f"the dictionary of the teacher {path!r} is not in "
        f"{' nor in '.join(map(repr, filter(None, places)))}. Expected dict.LANG.txt for "
        "each of its languages, or one joined dict.txt; name their folder with "
        "--teacher-data."
    )


def _setup_task(config, folder, student):
    """The task of ``config`` with the dictionaries in ``folder``.

    Raises:
        FileNotFoundError: they are not there
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(folder)
    # Tasks without a dataclass keep their configuration in a plain Namespace.
    with open_dict(config) if OmegaConf.is_config(config) else contextlib.nullcontext():
        config.data = folder
        if hasattr(config, "source_lang"):
            _settle_languages(config, folder, student)
        with _dictionary_for_each_language(config, folder) as config.data:
            task = tasks.setup_task(config, **from_checkpoint(tasks.setup_task))
    _own_config(task).data = folder
    return task


def _settle_languages(config, folder, student):
    """Fill in languages that were inferred from file names when the teacher was trained."""
    known = [config.source_lang, config.target_lang]
    if None in known:
        known = [getattr(student, f"{side}_lang", None) for side in ("source", "target")]
    if None in known:
        known = data_utils.infer_language_pair(folder)
    if None in known:
        raise FileNotFoundError(f"{folder}: files that tell the language pair")
    config.source_lang, config.target_lang = known


@contextlib.contextmanager
def _dictionary_for_each_language(config, folder):
    """A folder with dict.LANG.txt for both languages, also from one joined dict.txt."""
    joined = os.path.join(os.path.abspath(folder), "dict.txt")
    languages = [getattr(config, f"{side}_lang", None) for side in ("source", "target")]
    wanted = [f"dict.{language}.txt" for language in languages if language]
    missing = [f for f in wanted if not os.path.exists(os.path.join(folder, f))]
    if not missing or not os.path.exists(joined):
        yield folder
        return
    with tempfile.TemporaryDirectory() as view:
        for name in wanted:
            own = os.path.join(os.path.abspath(folder), name)
            os.symlink(own if name not in missing else joined, os.path.join(view, name))
        yield view


def _build_model(state, task, path):
    config = _config(state).model
    model = task.build_model(config, **from_checkpoint(task.build_model))
    try:
        model.load_state_dict(state["model"], strict=True, model_cfg=config)
    except RuntimeError as error:
        raise ValueError(
            f"the teacher {path!r} does not fit its dictionary: {error}. Name the folder "
            "with the dictionary it was trained with (--teacher-data)."
        ) from error
    return model
