"""What a rule is to launches: a function of registers, by a name that says all of it, and what that function takes and gives."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class State(NamedTuple):
    """What a rule remembers of each element of a parameter from step to step.

    Args:
        start: its value before the first step; default 0.
        nonnegative: it is never negative, as an average of squares is: its codes of 8 or 4 bits are unsigned, twice as fine, and no
            value above 0 becomes 0; default False.
        full_precision: it is kept in float32, or float64, whatever ``state_dtype`` says; default False.
        mean: the next state of the rule, of which this one is the second moment: in fewer bits it is kept as the variance about that;
            the first state alone may have one; default None.
    """

    start: float = 0.0
    nonnegative: bool = False
    full_precision: bool = False
    mean: str | None = None


class Rule(NamedTuple):
    """An update rule, `(grad, param, state, lr, n) -> (update, state)`: see rules.py."""

    name: str  # no two rules have the same: what is compiled, cached and tuned goes by it
    function: Any
    states: Mapping[str, State]  # in its order
    numbers: tuple[str, ...]  # what n has, in its order
    neutral: Mapping[str, float]  # of these, the value that changes nothing, if there is one


RULES: dict[str, Rule] = {}  # by name, all that this process knows


def declare(rule: Rule) -> Rule:
    """Let launches find a rule by its name; of one that has been declared, the first is what counts."""
    return RULES.setdefault(rule.name, rule)


def declared(states: Mapping[str, State], numbers: type, neutral: Mapping[str, float] | None = None):
    """What declares a function by its own name; numbers: a NamedTuple of what it takes as n."""

    def decorate(function):
        declare(Rule(function.__name__, function, states, numbers._fields, neutral or {}))
        return function

    return decorate
