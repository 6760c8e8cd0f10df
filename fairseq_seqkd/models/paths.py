"""Removes paths, hosts and project names from configurations that are shipped."""

import re
from argparse import Namespace

from omegaconf.errors import ValidationError

from fairseq_seqkd.models.checkpoints import plain_containers, writable

# A slash, or a drive's letter, in any setting; and any value of these settings.
_PATH = re.compile(r"/|\\\\|\b[A-Za-z]:\\")
_PRIVATE = re.compile(
    r"data|\w*_(dir|logdir|path|file|repo|hash|project|host)|\w*_from(_model)?|"
    r"sentencepiece_model|bpe_codes|\w*init_method"
)


def without_paths(value, key=""):
    """A copy of plain containers in which settings that name a path or a host are None.

    Args:
        value: nested dictionaries and lists
        key: the setting whose value it is
    """
    if isinstance(value, dict):
        return {name: without_paths(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [item for item in (without_paths(one, key) for one in value) if item is not None]
    is_private = isinstance(value, str) and (_PATH.search(value) or _PRIVATE.fullmatch(key))
    return None if is_private else value


def remove_paths(config):
    """Set what names a path or a host to None, in a configuration of any type.

    Args:
        config: a Namespace, dictionary or OmegaConf container; it is changed
    """
    items = vars(config) if isinstance(config, Namespace) else config
    for key, value in plain_containers(config).items():
        if isinstance(value, dict):
            remove_paths(items[key])
        elif without_paths(value, str(key)) != value:
            _set(config, items, key, without_paths(value, str(key)))


def _set(config, items, key, value):
    with writable(config):
        try:
            items[key] = value
        except ValidationError:  # a string that cannot be None
            items[key] = ""
