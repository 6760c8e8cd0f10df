"""Builds models from checkpoints, with a task and dictionaries of their own.

A fairseq checkpoint does not contain its dictionary, so it has to be found on disk.
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
    """Build the models of one or several checkpoints, with a task of their own.

    Args:
        path: checkpoint file, or several separated by colons
        data: folder with the dictionaries; None looks beside the first checkpoint, then in the
            data folder of its training
        student_task: gives the languages if the checkpoint does not. Its dictionaries are used
            if the models' are not found (then only the sizes of the embeddings are checked,
            with a warning)
    Returns:
        the models, their task, and whether the task has the models' own dictionaries
    Raises:
        FileNotFoundError: a checkpoint does not exist, or no dictionary was found
        ValueError: a file is not a fairseq checkpoint, holds a pickle that could run code, or
            does not fit the dictionary
    """
    paths = checkpoint_paths(path)
    state = load_state(paths[0])
    config = config_of(state, paths[0]).task
    task, knows_dictionary = task_with_own_dictionaries(config, paths[0], data, student_task)
    models = [_build_model(state, task, paths[0])]
    models += [_build_model(load_state(other), task, other) for other in paths[1:]]
    return models, task, knows_dictionary


def task_with_dictionaries_in(path, folder):
    """Set up the task of a checkpoint on another data-bin, with the dictionaries there.

    Args:
        path: checkpoint file; of several, separated by colons, the first
        folder: the data-bin
    Raises:
        FileNotFoundError: a checkpoint or a dictionary does not exist
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


def task_with_own_dictionaries(
    config, path, data=None, student_task=None, flag="--teacher-data"
):
    """Set up a model's task with the model's own dictionaries, wherever they are found.

    Args:
        config: the task's configuration in the checkpoint
        path: the model's file; its dictionaries may be in the same folder
        data, student_task: as for `load_models`
        flag: the flag that sets ``data``, for the error message
    Returns:
        the task, and whether the dictionaries are the model's own
    Raises:
        FileNotFoundError: no dictionary was found
    """
    student = _config_of_task(student_task)
    beside = os.path.dirname(os.path.abspath(path))
    folders = [beside, _data_folder(config)] if data is None else [data]
    folders = [folder for folder in folders if folder]
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            return _setup_task(config, folder, student), True
    missing = (
        f"the dictionary of {path!r} is not in {' nor in '.join(map(repr, folders))}. Expected "
        "dict.LANG.txt for each of its languages, or one joined dict.txt; name their folder "
        f"with {flag}."
    )
    if data is None and student is not None:
        with contextlib.suppress(FileNotFoundError):
            task = _setup_task(config, _data_folder(student), student)
            logger.warning("%s Until then only the sizes of embeddings are compared.", missing)
            return task, False
    raise FileNotFoundError(missing)


def _config_of_task(task):
    """A task's configuration (new tasks: ``cfg``; old ones: ``args``), or None."""
    return getattr(task, "cfg", None) or getattr(task, "args", None)


def _data_folder(config):
    data = getattr(config, "data", None)
    return utils.split_paths(data)[0] if data else None


def _setup_task(config, folder, student):
    """Set up a task with the dictionaries in ``folder``.

    Raises:
        FileNotFoundError: they are not there
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(folder)
    with writable(config):
        config.data = folder
        if "source_lang" in config:
            _fill_in_languages(config, folder, student)
        with _dictionary_for_each_language(config, folder) as view:
            config.data = view
            task = tasks.setup_task(config, **from_checkpoint(tasks.setup_task))
    _config_of_task(task).data = folder
    return task


def _fill_in_languages(config, folder, student):
    """Fill in languages that fairseq inferred from file names when the model was trained."""
    pair = [config.source_lang, config.target_lang]
    if None in pair:
        pair = [getattr(student, f"{side}_lang", None) for side in ("source", "target")]
    if None in pair:
        pair = data_utils.infer_language_pair(folder)
    if None in pair:
        raise FileNotFoundError(f"{folder}: no file names from which to infer the languages")
    config.source_lang, config.target_lang = pair


@contextlib.contextmanager
def _dictionary_for_each_language(config, folder):
    """A folder with dict.LANG.txt for both languages; one joined dict.txt serves for both."""
    joined = os.path.join(os.path.abspath(folder), "dict.txt")
    languages = [getattr(config, f"{side}_lang", None) for side in ("source", "target")]
    names = [f"dict.{language}.txt" for language in languages if language]
    paths = {name: os.path.join(os.path.abspath(folder), name) for name in names}
    if all(map(os.path.exists, paths.values())) or not os.path.exists(joined):
        yield folder
        return
    with tempfile.TemporaryDirectory() as view:
        for name, path in paths.items():
            os.symlink(path if os.path.exists(path) else joined, os.path.join(view, name))
        yield view


def _build_model(state, task, path):
    config = config_of(state, path).model
    model = task.build_model(config, **from_checkpoint(task.build_model))
    try:
        model.load_state_dict(state["model"], strict=True, model_cfg=config)
    except RuntimeError as error:
        raise ValueError(
            f"the model {path!r} does not fit its dictionary: {error}. Name the folder with "
            "the dictionary of its training (--teacher-data)."
        ) from error
    return model
