"""Builds models from checkpoints, with a task and dictionaries of their own.

A fairseq checkpoint does not contain its dictionary, so it has to be found on disk.
"""

import contextlib
import logging
import os
import tempfile
from typing import NamedTuple

from fairseq import tasks, utils
from fairseq.models import FairseqMultiModel
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_seqkd.compat import complete_task, from_checkpoint
from fairseq_seqkd.models.checkpoints import checkpoint_paths, config_of, load_state, writable
from fairseq_seqkd.models.language_tokens import config_of_task, languages_of

_BYTE_ORDER_MARK = "\ufeff"

logger = logging.getLogger(__name__)


class ModelRole(NamedTuple):
    """The name that a command has for the models it loads, and its flags for them.

    Attributes:
        name: such as teacher
        data_flag: names the folder of their dictionaries
        dtype_flag: sets their precision
    """

    name: str
    data_flag: str
    dtype_flag: str


TEACHER = ModelRole("teacher", "--teacher-data", "--teacher-dtype")


def load_models(
    path,
    data=None,
    student_task=None,
    role=TEACHER,
    languages=(None, None),
    source_folder=None,
):
    """Build the models of one or several checkpoints, with a task of their own.

    Args:
        path: checkpoint file, or several separated by colons
        data: folder with the dictionaries; None looks beside the first checkpoint, then in the
            data folder of its training
        student_task: gives the languages if the checkpoint does not. Its dictionaries are used
            if the models' are not found (then only the sizes of the embeddings are checked,
            with a warning)
        role: `ModelRole`, for messages
        languages: source and target language, if there is no student to give them
        source_folder: a data-bin with the model's sources, if they are not the student's; it
            may give the dictionaries and the languages as well
    Returns:
        the models, their task, and whether the task has the models' own dictionaries
    Raises:
        FileNotFoundError: a checkpoint does not exist, or no dictionary was found
        ValueError: a file is not a fairseq checkpoint, holds a pickle that could run code, or
            does not fit the dictionary; or its direction is not known, or another one
    """
    paths = checkpoint_paths(path)
    state = load_state(paths[0])
    config = config_of(state, paths[0]).task
    flag = role.data_flag
    task, knows_dictionary = task_with_own_dictionaries(
        config, paths[0], data, student_task, flag, languages, source_folder
    )
    models = [_build_model(state, task, paths[0], flag)]
    models += [_build_model(load_state(other), task, other, flag) for other in paths[1:]]
    return models, task, knows_dictionary


def task_name_of(path):
    """The name of the task of a checkpoint; of several, separated by colons, the first's."""
    first = checkpoint_paths(path)[0]
    config = config_of(load_state(first), first).task
    return getattr(config, "task", None) or getattr(config, "_name", None)


def task_with_dictionaries_in(path, folder, languages=(None, None), data=None):
    """Set up the task of a checkpoint on another data-bin, with the dictionaries there.

    Args:
        path: checkpoint file; of several, separated by colons, the first
        folder: the data-bin with the dictionaries
        languages: as for `load_models`
        data: the data-bin with the splits, if it is another
    Raises:
        FileNotFoundError: a checkpoint or a dictionary does not exist
        ValueError: as for `load_models`
    """
    first = checkpoint_paths(path)[0]
    config = config_of(load_state(first), first).task
    try:
        task = _setup_task(config, folder, languages)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder!r} has no dictionary for the task of {path!r} ({error}). Expected "
            "dict.LANG.txt for each of its languages, or one dict.txt."
        ) from error
    config = config_of_task(task)
    config.data = data or folder
    if getattr(config, "dataset_impl", None) in ("mmap", "lazy", "cached"):
        config.dataset_impl = None  # of the training's data; inferred from each file
    return task


def task_with_own_dictionaries(
    config,
    path,
    data=None,
    student_task=None,
    flag=TEACHER.data_flag,
    languages=(None, None),
    source_folder=None,
):
    """Set up a model's task with the model's own dictionaries, wherever they are found.

    Args:
        config: the task's configuration in the checkpoint
        path: the model's file; its dictionaries may be in the same folder
        data, student_task, languages, source_folder: as for `load_models`
        flag: the flag that sets ``data``, for the error message
    Returns:
        the task, and whether the dictionaries are the model's own
    Raises:
        FileNotFoundError: no dictionary was found
    """
    student = config_of_task(student_task)
    if student is not None:
        languages = languages_of(student_task)
    beside = os.path.dirname(os.path.abspath(path))
    if source_folder is not None and len(language_pairs(source_folder)) == 1:
        languages = next(iter(language_pairs(source_folder)))
    folders = [beside, _data_folder(config), source_folder] if data is None else [data]
    folders = [folder for folder in folders if folder]
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            return _setup_task(config, folder, languages), True
    missing = (
        f"the dictionary of {path!r} is not in {' nor in '.join(map(repr, folders))}. Expected "
        "dict.LANG.txt for each of its languages, or one joined dict.txt; name their folder "
        f"with {flag}."
    )
    if data is None and student is not None:
        with contextlib.suppress(FileNotFoundError):
            task = _setup_task(config, _data_folder(student), languages)
            logger.warning("%s Until then only the sizes of embeddings are compared.", missing)
            return task, False
    raise FileNotFoundError(missing)


def _data_folder(config):
    data = getattr(config, "data", None)
    return utils.split_paths(data)[0] if data else None


def _setup_task(config, folder, languages):
    """Set up a task with the dictionaries in ``folder``.

    Args:
        languages: source and target, where the configuration has none
    Raises:
        FileNotFoundError: they are not there
        ValueError: the languages are not known, or not the model's
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(folder)
    with writable(config):
        config.data = folder
        if "source_lang" in config:
            _fill_in_languages(config, folder, languages)
        with _dictionary_for_each_language(config, folder) as view:
            config.data = view
            task = tasks.setup_task(config, **from_checkpoint(tasks.setup_task))
            complete_task(task)
    check_byte_order_marks(task, folder)
    config_of_task(task).data = folder
    return task


def check_byte_order_marks(task, folder):
    """Refuse dictionaries that begin with a byte-order mark.

    Args:
        task: a fairseq task
        folder: of its dictionaries
    Raises:
        ValueError: it became a part of their first symbol; gives the remedy
    """
    sides = (getattr(task, name, None) for name in ("src_dict", "tgt_dict", "dictionary"))
    for dictionary in (*sides, *getattr(task, "dicts", {}).values()):
        first = dictionary.symbols[dictionary.nspecial :][:1] if dictionary else []
        if any(symbol.startswith(_BYTE_ORDER_MARK) for symbol in first):
            files = os.path.join(folder, "dict.*txt")
            raise ValueError(
                f"a dictionary in {folder!r} begins with a byte-order mark, which became a "
                "part of its first symbol. Remove it, which changes nothing else: "
                f"sed -i '1s/^\\xEF\\xBB\\xBF//' {files}"
            )


def _fill_in_languages(config, folder, languages):
    """Fill in languages that the checkpoint does not have: those of a multilingual model.

    Raises:
        FileNotFoundError: there are no files with names from which to infer them
        ValueError: there are files of several directions; or the checkpoint's is the other one
    """
    pair = config.source_lang, config.target_lang
    if None not in pair:
        if pair == tuple(languages)[::-1] and pair[0] != pair[1]:
            raise ValueError(
                f"the model translates from {pair[0]} to {pair[1]}, expected from {pair[1]} to "
                f"{pair[0]}: take a model of that direction, or exchange -s and -t"
            )
        return
    if None in languages and not language_pairs(folder):
        raise FileNotFoundError(f"{folder}: no file names from which to infer the languages")
    if None in languages:
        languages = infer_languages(folder, *languages)
    _check_direction(config, languages)
    config.source_lang, config.target_lang = languages


def _check_direction(config, languages):
    """Refuse languages that a multilingual model does not know."""
    pairs = config.lang_pairs if "lang_pairs" in config else None
    pairs = pairs.split(",") if isinstance(pairs, str) else list(pairs or ())
    known = {lang for pair in pairs for lang in pair.split("-")}
    known |= set(config.langs or ()) if "langs" in config else set()
    unknown = [lang for lang in languages if known and lang not in known]
    if unknown:
        raise ValueError(
            f"the model does not know the language {unknown[0]!r}: expected two of "
            f"{', '.join(sorted(known))} (-s, -t)"
        )


def language_pairs(folder):
    """The language pairs of a data-bin, from the names of its files; none without a folder."""
    found = os.listdir(folder) if os.path.isdir(folder) else ()
    names = [name.split(".") for name in found if name.endswith(".idx")]
    pairs = {tuple(name[1].split("-")) for name in names if len(name) == 4}
    return {pair for pair in pairs if len(pair) == 2}


def infer_languages(folder, source_lang=None, target_lang=None):
    """The direction of a data-bin that fits the given languages.

    Raises:
        ValueError: several directions fit, or none
    """
    pairs = language_pairs(folder)
    # A given language may be either side of a pair.
    both_ways = {way for pair in pairs for way in (pair, pair[::-1])}
    fitting = {
        (source, target)
        for source, target in (pairs if source_lang is target_lang is None else both_ways)
        if source_lang in (None, source) and target_lang in (None, target)
        if "None" not in (source, target)
    }
    if len(fitting) == 1:
        return fitting.pop()
    if not pairs:
        raise ValueError(
            f"{folder!r} has no binarised sentence pairs: expected files of fairseq-preprocess "
            "such as train.de-en.de.idx. Speech has no stores: train with --teacher-path."
        )
    raise ValueError(
        f"the languages of {folder!r} cannot be inferred from its files (found "
        f"{sorted('-'.join(pair) for pair in pairs)}): give --source-lang and --target-lang"
    )


def open_task(data, source_lang=None, target_lang=None):
    """A stock translation task with the dictionaries of a data-bin.

    Args:
        data: fairseq's ``data`` argument; the first data-bin counts
        source_lang, target_lang: as for `open_split`
    Raises:
        FileNotFoundError: the folder or a dictionary does not exist
        ValueError: the languages cannot be inferred
    """
    folder = utils.split_paths(data)[0]
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"no folder {folder!r}: expected a data-bin")
    languages = source_lang, target_lang
    if None in languages:
        languages = infer_languages(folder, source_lang, target_lang)
    for lang in languages:
        if not os.path.exists(os.path.join(folder, f"dict.{lang}.txt")):
            raise FileNotFoundError(
                f"{folder!r} has no dict.{lang}.txt. If the data has sources only, copy the "
                f"teacher's dictionary there: the student needs the same {lang} symbols."
            )
    config = TranslationConfig(data=data, source_lang=languages[0], target_lang=languages[1])
    task = TranslationTask.setup_task(config)
    check_byte_order_marks(task, folder)
    return task


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


def _build_model(state, task, path, flag):
    config = config_of(state, path).model
    try:
        model = task.build_model(config, **from_checkpoint(task.build_model))
        model.load_state_dict(state["model"], strict=True, model_cfg=config)
    except RuntimeError as error:
        raise ValueError(
            f"the model {path!r} does not fit its dictionary: {error}. Name the folder with "
            f"the dictionary of its training ({flag})."
        ) from error
    if isinstance(model, FairseqMultiModel):
        return model.models["-".join(languages_of(task))]
    return model
