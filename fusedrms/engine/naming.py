"""Names of options: those that are misspelt, and those that another system has for them."""

import inspect
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

from .options import plain

# what other systems call an option, and nothing else; their decay, rho or wd may as well be keys of the user's own
ALIASES = {"learning_rate": "lr", "epsilon": "eps", "clipnorm": "clip_grad_norm", "clipvalue": "clip_grad_value"}
CLOSE = 0.8  # of difflib's ratio, from 0 to 1; "alhpa" for alpha has just this
SHORT = 5  # a name of fewer letters has too many neighbours: lr0, speed


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@lru_cache(maxsize=1024)
def closest(key: str, names: frozenset[str]) -> str | None:
    """The name that a key which is none of them was meant to be; None if it looks like a key of its own."""
    known = {name: name for name in names}
    for pair in ALIASES.items():
        known |= {alias: name for alias, name in (pair, pair[::-1]) if name in names and alias not in names}
    spelt = {_letters(name): meant for name, meant in known.items()}
    letters, words = _letters(key), f"_{key.lower().strip('_')}_"
    if letters in spelt:
        return spelt[letters]
    # a name with further words, or the last of its words, says something else: max_momentum, lr_scale, grad_norm
    if any(f"_{name}_" in words or f"_{name}_".endswith(words) for name in known):
        return None
    found = get_close_matches(letters, [name for name in spelt if len(name) >= SHORT], 1, CLOSE)
    return spelt[found[0]] if found else None


def check_keywords(function: str, given: Iterable[str], names: Iterable[str]) -> None:
    """TypeError, in Python's words and with the right name, unless a function has all the keywords that it is given."""
    names = frozenset(names)
    for key in given:
        if key not in names:
            name = closest(key, names)
            hint = f"; did you mean {name!r}?" if name else ""
            raise TypeError(f"{function} got an unexpected keyword argument {key!r}{hint}")


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
        """Those of the optimizer, by their own names, with some arguments given anew."""
        arguments = {**self.arguments, **given}
        return inspect.unwrap(self.preset)(None, **{name: plain(value) for name, value in arguments.items()})

    def translate(self, group: dict[str, Any]) -> dict[str, Any]:
        """A parameter group with the options that its keys in the source's names ask for, instead of those keys.

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
