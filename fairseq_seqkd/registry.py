"""Named options with settings of their own: the axes of which a method is made.

An axis has options; an option is a name, a function, and the parameters that are its alone.
A configuration names an option; `Axis.resolve` gives the function with its parameters filled in
from the configuration. Flags, range checks and the lists in error messages follow from what is
registered, so that a new option is written in one place.
"""

import functools
import inspect
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Tuple


def flag(name):
    """The command-line flag of a key of the configuration."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class Parameter:
    """A setting that belongs to one or several options of an axis.

    Attributes:
        name: its key in the configuration
        default: taken where the configuration has None
        help: its meaning, for ``--help``
        expected: its range, in words
        is_valid: tests whether a value is in that range
        axis: if it names an option of another axis, that axis
        allowed: allowed values of a string parameter
    """

    name: str
    default: Any
    help: str
    expected: str = ""
    is_valid: Callable[[Any], bool] = lambda value: True
    axis: Optional["Axis"] = None
    allowed: Tuple[str, ...] = ()

    def resolve(self, settings):
        """The value in ``settings``, or the default; of an axis the resolved option.

        Raises:
            ValueError: it is out of its range; names the flag and the range
        """
        value = settings.get(self.name)
        value = self.default if value is None else value
        if self.axis is not None:
            return self.axis.resolve(str(value), settings)
        if self.allowed:
            return one_of(self.allowed, str(value), self.name)
        if not self.is_valid(value):
            raise ValueError(f"{flag(self.name)} is {value}, expected {self.expected}")
        return value


@dataclass(frozen=True)
class Option:
    """A function and its parameters.

    Attributes:
        function: None for an option that does nothing
        help: its meaning, in one line
        parameters: argument of the function -> `Parameter`
        remembers: names of what it remembers from batch to batch, which a resume needs
    """

    function: Optional[Callable]
    help: str
    parameters: Dict[str, Parameter] = field(default_factory=dict)
    remembers: Tuple[str, ...] = ()


class Axis:
    """Named options, each a function with parameters of its own.

    Args:
        name: its key in the configuration
    """

    def __init__(self, name):
        self.name = name
        self.options = {}

    def add_noop(self, name, help):
        """Register an option that does nothing, and so has no function."""
        self.options[name] = Option(None, help)

    def option(self, name=None, remembers=(), **parameters):
        """Decorator that registers a function as an option.

        Args:
            name: of the option; None is the function's name
            remembers: as for `Option`
            parameters: argument of the function -> `Parameter`
        Raises:
            ValueError: the axis has an option of that name, or the function lacks an argument
        """

        def register(function):
            name_ = name or function.__name__
            self._check_registration(name_, function, parameters)
            help = inspect.getdoc(function).split("\n")[0]
            self.options[name_] = Option(function, help, parameters, remembers)
            return function

        return register

    def _check_registration(self, name, function, parameters):
        if name in self.options:
            raise ValueError(f"{flag(self.name)} has an option {name!r} already")
        arguments = inspect.signature(function).parameters.values()
        unknown = set(parameters) - {argument.name for argument in arguments}
        if unknown and not any(argument.kind is argument.VAR_KEYWORD for argument in arguments):
            raise ValueError(
                f"{flag(self.name)} {name}: {function.__name__}() has no argument "
                f"{sorted(unknown)[0]!r}"
            )

    def resolve(self, name, settings):
        """An option's function with its parameters filled in, a `functools.partial`.

        Args:
            name: of the option
            settings: {key of the configuration: value}
        Returns:
            None for an option that does nothing
        Raises:
            ValueError: no option has this name, or a parameter is out of its range
        """
        option = self.options[one_of(self.options, name, self.name)]
        resolved = {key: one.resolve(settings) for key, one in option.parameters.items()}
        return option.function and functools.partial(option.function, **resolved)

    def parameters(self):
        """{name: (Parameter, {option it is for: its default there})}, also of nested axes."""
        found = {}
        for name, option in self.options.items():
            for parameter in option.parameters.values():
                users = found.setdefault(parameter.name, (parameter, {}))[1]
                users[f"{flag(self.name)} {name}"] = parameter.default
                if parameter.axis is not None:
                    found.update(parameter.axis.parameters())
        return found

    def used_parameters(self, name, settings):
        """{flag and name of an option: the names of its parameters}, with nested options."""
        parameters = self.options[name].parameters.values()
        used = {f"{flag(self.name)} {name}": {parameter.name for parameter in parameters}}
        for parameter in parameters:
            if parameter.axis is not None:
                nested = settings.get(parameter.name) or parameter.default
                used.update(parameter.axis.used_parameters(str(nested), settings))
        return used


def one_of(names, name, key):
    """``name``, if it is one of ``names``.

    Raises:
        ValueError: it is not; lists those that are
    """
    if name not in names:
        raise ValueError(f"{flag(key)} is {name!r}, expected one of {', '.join(names)}")
    return name


def refuse_unused(axes, in_use, settings, given):
    """Refuse parameters of options that are not in use.

    Args:
        axes: all `Axis` objects
        in_use: (axis, name of the option) of everything that is in use
        settings: the configuration that it was resolved with
        given: what the user gave of it
    Raises:
        ValueError: names the flag, and the options that it belongs to
    """
    used = {}
    for axis, name in in_use:
        used.update(axis.used_parameters(name, settings))
    names_in_use = set().union(*used.values())
    for axis in axes:
        for name, (_, users) in axis.parameters().items():
            if given.get(name) is not None and name not in names_in_use:
                raise ValueError(
                    f"{flag(name)} is {given.get(name)}, but nothing uses it: it belongs to "
                    f"{' and '.join(users)}, and this is {', '.join(used)}. Leave it out."
                )
