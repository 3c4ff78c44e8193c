"""Names of options: those that are misspelt, and those that another system has for them."""

import inspect
import re
import warnings
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from functools import lru_cache, wraps
from typing import Any, Protocol, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])

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


def check_keywords(function: str, given: Iterable[str], names: Iterable[str], of_groups: Collection[str] = ()) -> None:
    """TypeError, in Python's words and with the right name, unless a function has all the keywords that it is given.

    Args:
        function: its name, for the error.
        given: the keywords.
        names: those that it has.
        of_groups: further options, which only a parameter group may have.
    """
    names = frozenset(names)
    for key in given:
        if key not in names:
            name = closest(key, names)
            hint = f"; did you mean {name!r}?" if name else ""
            if not name and key in of_groups:
                group = f"{function.removesuffix('()')}([dict(params=params, {key}=...)])"
                hint = f", which is none of its arguments: put it into a parameter group, {group}"
            raise TypeError(f"{function} got an unexpected keyword argument {key!r}{hint}")


def suggests(function: _Function) -> _Function:
    """A decorator: check_keywords() before the call."""
    names = frozenset(inspect.signature(function).parameters)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        check_keywords(f"{function.__qualname__}()", kwargs, names)
        return function(*args, **kwargs)

    return cast(_Function, checked)


class Source(Protocol):
    """What has made an optimizer from arguments of other names, as a preset does; its str() is its name."""

    @property
    def names(self) -> frozenset[str]:
        """Its arguments' names."""
        ...

    def options(self) -> dict[str, Any]:
        """What it was called with, as options of the optimizer by their own names."""
        ...

    def translate(self, group: dict[str, Any]) -> dict[str, Any]:
        """A parameter group with options in place of the keys that have its names."""
        ...


def warn_of_unknown(where: str, keys: Iterable[Any], optimizer: str, options: Collection[str], source: Source | None) -> None:
    """Warn of each key that looks like an option but is none.

    Args:
        where: what has the keys, for the warning.
        keys: those that are no options.
        optimizer: its class.
        options: all options.
        source: what has made the optimizer from other names, if anything has.
    """
    foreign = source.names.difference(options) if source else frozenset()
    for key in sorted(key for key in keys if isinstance(key, str)):
        if key in foreign:
            hint = f": set an option of it; only groups that are passed or added may have the arguments of {source}"
        elif name := closest(key, foreign.union(options)):
            hint = f": did you mean {name!r}?"
        else:
            continue
        warnings.warn(f"{where} has {key!r}, which is no option of {optimizer}{hint}", stacklevel=4)
