"""An axis: one of the independent choices of which a method is made.

Its values are functions, registered by name together with the parameters that are theirs
alone. A configuration names a value; what comes back is the function with its parameters
filled in. Nothing else has to be told of a new value: flags, range checks and the lists in
error messages follow from what is registered.
"""

import functools
import inspect
from dataclasses import dataclass
from typing import Any, Callable, Optional, Tuple


def flag(name):
    """How a key of the configuration is written on the command line."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class Parameter:
    """A setting that belongs to one or several values of an axis.

    Attributes:
        name: its key in the configuration
        default: taken where the configuration has None
        help: what it is, for ``--help``
        expected: its range, in words
        holds: whether a value is in that range
        axis: the axis of which it names a value, if it does
        choices: the names that it can have, if it is a name
    """

    name: str
    default: Any
    help: str
    expected: str = ""
    holds: Callable[[Any], bool] = lambda value: True
    axis: Optional["Axis"] = None
    choices: Tuple[str, ...] = ()

    def read(self, settings):
        """The value in ``settings``, or the default.

        Raises:
            ValueError: it is out of its range; names the flag and the range
        """
        value = settings.get(self.name)
        value = self.default if value is None else value
        if self.axis is not None:
            return self.axis.choose(str(value), settings)
        if self.choices:
            return one_of(self.choices, str(value), self.name)
        if not self.holds(value):
            raise ValueError(f"{flag(self.name)} is {value}, expected {self.expected}")
        return value


@dataclass(frozen=True)
class Value:
    """A function and its parameters, by the names of its arguments."""

    function: Callable
    parameters: dict

    @property
    def needs(self):
        """The keyword-only arguments that are no parameters: what the caller has to know."""
        arguments = inspect.signature(self.function).parameters.values()
        keyword_only = [a.name for a in arguments if a.kind is a.KEYWORD_ONLY]
        return tuple(name for name in keyword_only if name not in self.parameters)


class Choice:
    """A value of an axis with its parameters filled in.

    Attributes:
        needs: names of what :meth:`__call__` takes from ``facts``
        arguments: the parameters, by the names of the function's arguments
    """

    def __init__(self, value, arguments):
        self.needs = value.needs
        self.arguments = arguments
        self._call = functools.partial(value.function, **arguments)

    def __call__(self, *arguments, facts=None):
        """The function's result; what it needs are attributes of ``facts``."""
        return self._call(*arguments, **{name: getattr(facts, name) for name in self.needs})


class Axis:
    """Named values, each a function with parameters of its own.

    Args:
        name: its key in the configuration
    """

    def __init__(self, name):
        self.name = name
        self.values = {}

    def value(self, **parameters):
        """Decorator: the function is a value of this axis, under its own name.

        Args:
            parameters: argument of the function -> :class:`Parameter`
        """

        def register(function):
            self.values[function.__name__] = Value(function, parameters)
            return function

        return register

    def choose(self, name, settings):
        """The :class:`Choice` that ``settings`` describe.

        Raises:
            ValueError: no value has this name, or a parameter is out of its range
        """
        value = self.values[one_of(self.values, name, self.name)]
        read = {key: one.read(settings) for key, one in value.parameters.items()}
        return Choice(value, read)

    def parameters(self):
        """{name: (Parameter, {value it is for: its default there})}, also of nested axes."""
        found = {}
        for name, value in self.values.items():
            for parameter in value.parameters.values():
                users = found.setdefault(parameter.name, (parameter, {}))[1]
                users[f"{flag(self.name)} {name}"] = parameter.default
                if parameter.axis is not None:
                    found.update(parameter.axis.parameters())
        return found

    def in_use(self, name, settings):
        """{what is chosen, as flag and value: the names of its parameters}, also nested."""
        parameters = self.values[name].parameters.values()
        used = {f"{flag(self.name)} {name}": {parameter.name for parameter in parameters}}
        for parameter in parameters:
            if parameter.axis is not None:
                chosen = settings.get(parameter.name) or parameter.default
                used.update(parameter.axis.in_use(str(chosen), settings))
        return used


def one_of(known, name, key):
    """``name``, if it is known.

    Raises:
        ValueError: it is not; lists those that are
    """
    if name not in known:
        raise ValueError(f"{flag(key)} is {name!r}, expected one of {', '.join(known)}")
    return name


def refuse_unused(axes, chosen, settings, given):
    """Refuse parameters of values that were not chosen.

    Args:
        axes: all :class:`Axis` objects
        chosen: (axis, name of the value) of every choice that was made
        settings: the configuration that they were made by
        given: what the user gave of it
    Raises:
        ValueError: names the flag, and what it belongs to
    """
    used = {}
    for axis, name in chosen:
        used.update(axis.in_use(name, settings))
    names_in_use = set().union(*used.values())
    for axis in axes:
        for name, (_, users) in axis.parameters().items():
            if given.get(name) is not None and name not in names_in_use:
                raise ValueError(
                    f"{flag(name)} is {given.get(name)}, but nothing uses it: it belongs to "
                    f"{' and '.join(users)}, and this is {', '.join(used)}. Leave it out."
                )
