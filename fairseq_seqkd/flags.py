"""Axes as flags of fairseq: their values' names, and their values' parameters."""

from dataclasses import field, make_dataclass
from typing import Optional

from fairseq.dataclass import ChoiceEnum


def names_of(axis):
    """The type of a dataclass field that names a value of an axis."""
    return ChoiceEnum(list(axis.values))


def with_parameters(name, doc, axes, bases):
    """A configuration dataclass with a field for every parameter of all values of some axes.

    None, the default of each, means that it was not given.
    """
    fields = [_field(*entry) for axis in axes for entry in axis.parameters().values()]
    return make_dataclass(name, fields, bases=bases, namespace={"__doc__": doc})


def _field(parameter, users):
    kind, names = type(parameter.default), parameter.choices
    if parameter.axis is not None:
        names = tuple(parameter.axis.values)
    if names:
        kind = ChoiceEnum(list(names))
    defaults = ", ".join(f"{default} for {user}" for user, default in users.items())
    help_ = f"{parameter.help} (default: {defaults})"
    return parameter.name, Optional[kind], field(default=None, metadata={"help": help_})
