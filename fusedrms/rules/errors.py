"""What is wrong with a rule, and where its user wrote it."""

import linecache
import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple

OWN = {f"{__package__}.{name}" for name in ("errors", "graph", "arithmetic", "host", "source", "tracing", "values", "words", "modes")}
LIBRARIES = ("torch", "numpy")
ENTRANCES = {(f"{__package__}.tracing", name) for name in ("trace", "run")}
CLOSE = 0.7  # of difflib's ratio, from 0 to 1


class RuleError(TypeError):
    """A function that is no update rule. The message names the rule, your line, what is wrong and what to write instead.

    Examples:
        >>> @fusedrms.rule()
        ... def SignSGD(grad, param, state, lr, n):
        ...     return (lr if grad > 0 else -lr), state
        Traceback (most recent call last):
        fusedrms.rules.errors.RuleError: ...
    """


class Rule(NamedTuple):
    """A user's function, and the name that errors call it by."""

    name: str
    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def error(self, what: str) -> RuleError:
        """What is wrong, at the line of the user's that runs now, or else where the function begins."""
        file, line = self._line()
        text = linecache.getline(file, line).strip()
        quoted = f', "{text}"' if text else ""
        return RuleError(f"rule {self.name!r}, {os.path.basename(file)} line {line}{quoted}: {what}")

    def _line(self) -> tuple[str, int]:
        frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
        while frame:
            module = frame.f_globals.get("__name__", "")
            if (module, frame.f_code.co_name) in ENTRANCES:  # the user's function has returned, or not begun
                break
            if module not in OWN and module.partition(".")[0] not in LIBRARIES:
                return frame.f_code.co_filename, frame.f_lineno
            frame = frame.f_back
        code = getattr(self.function, "__code__", None)
        return (code.co_filename, code.co_firstlineno) if code else ("?", 0)


def meant(name: str, names: Iterable[str]) -> str:
    """What to write instead of a name that is unknown."""
    names = list(names)
    close = get_close_matches(name, names, 1, CLOSE)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are {', '.join(names)}" if names else "there are none"
