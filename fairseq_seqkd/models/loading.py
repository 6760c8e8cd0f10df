"""Builds the models of checkpoints by a task of their own, with their own dictionaries.

fairseq keeps no dictionary in a checkpoint, so it has to be found.
"""

import contextlib
import logging
import os
import tempfile

from fairseq import tasks, utils
from fairseq.data import data_utils

from fairseq_seqkd.compat import from_checkpoint
from fairseq_seqkd.models.checkpoints import checkpoint_paths, config_of, load_state, writable

logger = logging.getLogger(__name__)


def load_models(path, data=None, student_task=None):
    """Build the models of one or several checkpoints by a task of their own.

    Args:
        path: checkpoint file, or several separated by colons
        data: folder with the dictionaries; None looks beside the first checkpoint and then
            where its training data was
        student_task: tells the languages where the checkpoint does not; and its
            dictionaries stand in when the models' are in none of these places (then only
            the sizes of the embeddings are checked, with a warning)
    Returns:
        the models, their task, and whether its dictionaries are their own
    Raises:
        FileNotFoundError: a checkpoint is not there, or no dictionary was found
        ValueError: a file is no fairseq checkpoint, holds a pickle that could run code, or
            has other sizes than the dictionary
    """
    paths = checkpoint_paths(path)
    state = load_state(paths[0])
    config = config_of(state, paths[0]).task
    task, knows_dictionary = own_task(config, paths[0], data, student_task)
    models = [_build_model(state, task, paths[0])]
    models += [_build_model(load_state(other), task, other) for other in paths[1:]]
    return models, task, knows_dictionary


def task_on(path, folder):
    """A task like the one a checkpoint was trained with, on other data.

    Args:
        path: checkpoint file, or several separated by colons, of which the first counts
        folder: the data-bin
    Raises:
        FileNotFoundError: a checkpoint or a dictionary is not there
        ValueError: as for `load_models`
    """
    first = checkpoint_paths(path)[0]
    config = config_of(load_state(first), first).task
    try:
        return _setup_task(config, folder, None)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder!r} has no dictionary for the task of {path!r} ({error}). Expected "
            "dict.LANG.txt for each of its languages, or one dict.txt."
        ) from error


def _own_config(task):
    """A task's configuration, whether it is of fairseq's new or old kind, or None."""
    return getattr(task, "cfg", None) or getattr(task, "args", None)


def _data_folder(config):
    data = getattr(config, "data", None)
    return utils.split_paths(data)[0] if data else None


def own_task(config, path, data=None, student_task=None, flag="--teacher-data"):
    """A model's task with the model's dictionaries, and whether they are its own.

    Args:
        config: of the task
        path: of the model's file, beside which the dictionaries may be
        data, student_task: as for `load_models`
        flag: with which a user names ``data``
    Raises:
        FileNotFoundError: they are nowhere
    """
    student = _own_config(student_task)
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
        f"the dictionary of {path!r} is not in "
        f"{' nor in '.join(map(repr, filter(None, places)))}. Expected dict.LANG.txt for "
        f"each of its languages, or one joined dict.txt; name their folder with {flag}."
    )


def _setup_task(config, folder, student):
    """The task of ``config`` with the dictionaries in ``folder``.

    Raises:
        FileNotFoundError: they are not there
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(folder)
    with writable(config):
        config.data = folder
        if "source_lang" in config:
            _settle_languages(config, folder, student)
        with _dictionary_for_each_language(config, folder) as view:
            config.data = view
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
    config = config_of(state, path).model
    model = task.build_model(config, **from_checkpoint(task.build_model))
    try:
        model.load_state_dict(state["model"], strict=True, model_cfg=config)
    except RuntimeError as error:
        raise ValueError(
            f"the teacher {path!r} does not fit its dictionary: {error}. Name the folder "
            "with the dictionary it was trained with (--teacher-data)."
        ) from error
    return model
