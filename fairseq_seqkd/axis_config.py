"""fairseq flags made of axes: their options' names, and their options' parameters.

Criteria and the pruning hook both need it, so it lies below them.
"""

from dataclasses import field, make_dataclass
from typing import Optional

from fairseq.dataclass import ChoiceEnum


def choice_type(axis):
    """The type of a dataclass field that names an option of an axis."""
    return ChoiceEnum(list(axis.options))


def config_with_parameters(name, doc, axes, bases):
    """A configuration dataclass with a field for every parameter of all options of some axes.

    The default of each is None: it was not given.
    """
    fields = [_field(*entry) for axis in axes for entry in axis.parameters().values()]
    return make_dataclass(name, fields, bases=bases, namespace={"__doc__": doc})


def _field(parameter, users):
    kind, names = type(parameter.default), parameter.allowed
    if parameter.axis is not None:
        names = tuple(parameter.axis.options)
    if names:
        kind = ChoiceEnum(list(names))
    defaults = ", ".join(f"{default} for {user}" for user, default in users.items())
    help_ = f"{parameter.help} (default: {defaults})"
    return parameter.name, Optional[kind], field(default=None, metadata={"help": help_})
