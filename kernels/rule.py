"""What a rule is to launches: a function of registers, by a name that says all of it, and what that function takes and gives."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class State(NamedTuple):
    """What a rule remembers of each element of a parameter from step to step.

    Args:
        start: Its value before the first step. Default 0.
        nonnegative: It is never negative, such as an average of squares. So its codes of 8 or 4 bits need no sign and are twice as fine,
            and no value above 0 becomes 0. Default False.
        full_precision: It is stored in float32, or float64, whatever `state_dtype` says. Default False.
        mean: Name of the next state, of which this one is the second moment. In fewer bits it is stored as the variance about that state.
            Only the first state of a rule of this package may have one. Default None.

    Examples:
        >>> @fusedrms.rule(states=dict(square_sum=fusedrms.State(0.1, nonnegative=True)), eps=1e-10)
        ... def Adagrad(grad, param, state, lr, n):
        ...     square_sum = state.square_sum + grad * grad
        ...     return lr * grad / (torch.sqrt(square_sum) + n.eps), state.replace(square_sum=square_sum)
        >>> optimizer = Adagrad([torch.ones(2)])
        >>> optimizer.prepare()
        >>> optimizer.state_dict()["state"][0]["square_sum"]
        tensor([0.1000, 0.1000])
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
