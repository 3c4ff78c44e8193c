"""What makes a preset of a function from another system's arguments to options."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from ..engine.optimizer import FusedOptimizer
from ..engine.options.checks import plain
from ..engine.options.naming import check_keywords

_Arguments = ParamSpec("_Arguments")
_Made = TypeVar("_Made", bound=FusedOptimizer)


class Preset(NamedTuple):
    """A function of this package, and what it was read from."""

    make: Callable[..., FusedOptimizer]  # around a function from its arguments to options
    optimizer: type[FusedOptimizer]
    system: str
    version: str


PRESETS: dict[str, Preset] = {}  # by the function's name


class Source(NamedTuple):
    """The preset that has made an optimizer, whose names its parameter groups may have as well."""

    preset: Callable[..., Any]  # around a function from its arguments to options
    arguments: dict[str, Any]  # what it was called with, but for the parameters

    def __str__(self) -> str:
        return self.preset.__name__

    @property
    def names(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.preset).parameters) - {"params"}

    def options(self, **given: Any) -> dict[str, Any]:
        """The optimizer's options by their own names, with some arguments given anew."""
        arguments = {**self.arguments, **given}
        return inspect.unwrap(self.preset)(None, **{name: plain(value) for name, value in arguments.items()})

    def translate(self, group: dict[str, Any]) -> dict[str, Any]:
        """A parameter group with options in place of the keys that have the source's names.

        Raises:
            ValueError: two of its keys ask for other values of one option.
        """
        given = {key: group[key] for key in group.keys() & self.names}
        if not given:
            return group
        options, before = self.options(**given), self.options()
        own = {key: value for key, value in group.items() if key not in given}
        # if no name is the source's alone, it may be a group of another optimizer, with all options by their own names
        for option in options.keys() & own.keys() if given.keys() - options.keys() else ():
            if options[option] not in (before[option], own[option]):
                raise ValueError(
                    f"a parameter group has {option}={own[option]!r}, but by the names of {self}, "
                    f"{', '.join(f'{key}={value!r}' for key, value in sorted(given.items()))}, it is {options[option]!r}: leave one out"
                )
        return {**options, **own}


def preset(
    optimizer: type[_Made], system: str, version: str
) -> Callable[[Callable[_Arguments, dict[str, Any]]], Callable[_Arguments, _Made]]:
    """A decorator: the function it is given maps arguments to options of `optimizer`, the one it returns makes the optimizer.

    Parameter groups, those that are added later too, may have the arguments' names: the same function translates them.
    system, version: whose source was read; of a paper, its authors and where it is.
    """

    def decorate(options: Callable[_Arguments, dict[str, Any]]) -> Callable[_Arguments, _Made]:
        signature = inspect.signature(options)

        @wraps(options)
        def make(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Made:
            of_groups = optimizer._class_defaults()  # pyright: ignore[reportPrivateUsage]
            check_keywords(f"{options.__name__}()", kwargs, signature.parameters, of_groups)
            try:
                arguments = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                raise TypeError(f"{options.__name__}() {error}") from None
            params = arguments.pop("params")
            source = Source(make, arguments)
            made = optimizer.__new__(optimizer)
            made._source = source  # pyright: ignore[reportPrivateUsage] - before its groups are added
            made.__init__(params, **source.options())
            return made

        make.__module__ = __package__ or ""  # where users, help() and pickles find it
        make.__signature__ = signature.replace(return_annotation=optimizer)  # pyright: ignore[reportAttributeAccessIssue]
        make.__annotations__ = {**options.__annotations__, "return": optimizer}
        PRESETS[options.__name__] = Preset(make, optimizer, system, version)
        return make

    return decorate


def positive_or_none(limit: float | None) -> float | None:
    """A limit that is off at 0 and below; the class checks what is no number."""
    return None if isinstance(limit, int | float) and limit <= 0 else limit
