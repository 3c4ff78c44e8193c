"""An update rule that a user wrote as a Python function with torch's words, traced: called with values that are not known."""

import dataclasses
import functools
import inspect
import threading
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import host, source
from .arithmetic import Arithmetic
from .errors import Rule
from .graph import ELEMENT
from .modes import NothingRandom, OneDtype
from .values import Numbers, State, Value, node_of, outcome

_running = threading.RLock()  # a function may declare another rule
ARGUMENTS = ("grad", "param", "state", "lr", "n")


@dataclasses.dataclass(frozen=True)
class Traced:
    """A rule as text: the kernels' function, which function_of() makes, and the host's."""

    name: str  # an identifier; rules that compute the same have the same
    source: str  # of a function (grad, param, state, lr, n) -> (update, states), where state and n are tuples
    numbers: tuple[str, ...]  # of the kernel, in the order of n
    per_step: tuple[str, ...]  # those that the step is in
    host_source: str
    read: frozenset[str] = frozenset()  # the options that the function has asked for

    @functools.cached_property
    def static_numbers(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        """(options) -> all numbers in order, NaN where the step is in them; options are floats or 0-d float64 tensors."""
        return host.functions(self.host_source)[0]

    @functools.cached_property
    def numbers_at(self) -> Callable[[Mapping[str, Any], Any], dict[str, Any]]:
        """(options, step) -> by name those that the step is in."""
        return host.functions(self.host_source)[1]

    def all_numbers(self, options: Mapping[str, Any], step: Any) -> tuple[Any, ...]:
        """All, in order, as they are at a step."""
        return self.in_order(self.static_numbers(options), self.numbers_at(options, step))

    def in_order(self, static: tuple[Any, ...], per_step: Mapping[str, Any]) -> tuple[Any, ...]:
        """What both functions of the host's source have returned, as one."""
        return tuple(per_step.get(name, value) for name, value in zip(self.numbers, static, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # functions are made again


def trace(
    function: Callable[..., Any],
    *,
    name: str,
    states: Sequence[str] = (),
    numbers: Mapping[str, bool] | None = None,
    static: Mapping[str, Any] | None = None,
    nonnegative_states: Collection[str] = (),
    more: str = "",
) -> Traced:
    """A rule in the kernels' language.

    Args:
        function: (grad, param, state, lr, n) -> (update, state.replace(...)).
        name: of the rule, in errors and in its identifier.
        states: names, in order.
        numbers: names or places of options, and of each whether it is never negative; the step is `n.step`.
        static: options whose Python values the function sees.
        nonnegative_states: those that are never negative.
        more: what the identifier is of beside the source.

    Raises:
        RuleError: the function is no such rule.
    """
    rule = Rule(name, function)
    once, again = (_traced(rule, states, numbers or {}, static or {}, nonnegative_states, more) for _ in range(2))
    if once != again:
        raise rule.error("it computes something else each time that it is called: leave out what is random, or counts calls")
    return once


def _traced(
    rule: Rule,
    states: Sequence[str],
    numbers: Mapping[str, bool],
    static: Mapping[str, Any],
    nonnegative_states: Collection[str],
    more: str,
) -> Traced:
    math = Arithmetic(rule)
    given = {one: math.graph.given("number", one, 0, nonnegative) for one, nonnegative in numbers.items()}
    given["step"] = math.graph.given("step", level=0, nonnegative=True)
    old = {one: math.graph.given("state", one, nonnegative=one in nonnegative_states) for one in states}
    n = Numbers(rule, {one: Value(math, node) for one, node in given.items()} | dict(static))
    state = State(rule, {one: Value(math, node) for one, node in old.items()}, lambda value: Value(math, node_of(math, value)))
    _check_signature(rule)
    with NothingRandom(rule):
        update, values = outcome(rule, rule(Value(math, math.grad), Value(math, math.param), state, Value(math, math.lr), n))
    update = math.number(node_of(math, update))
    if update.is_literal and update.value == 0:
        update = math.element(update)  # it leaves the parameter as it is
    if update.level < ELEMENT:
        raise rule.error("its update has neither grad, param nor a state in it: it would be the same for all elements")
    new = {one: math.element(values[one].node) for one in states}
    identifier, text, columns = source.write(rule.name, old, update, new, more)
    per_step = tuple(one for one, node in columns.items() if node.per_step)
    read = frozenset(object.__getattribute__(n, "_read"))
    return Traced(identifier, text, tuple(columns), per_step, host.write(columns), read)


def _check_signature(rule: Rule) -> None:
    try:
        named = inspect.signature(rule.function).bind(*ARGUMENTS).arguments
    except TypeError:
        raise rule.error(f"it must take {', '.join(ARGUMENTS)}") from None
    except ValueError:
        return  # a built-in's signature is not known
    if wrong := [name for name, argument in named.items() if name != argument and name in ARGUMENTS]:
        raise rule.error(f"{wrong[0]!r} is in another's place: it must take {', '.join(ARGUMENTS)} in this order")


def loses_all(function: Callable[..., Any], states: Mapping[str, float], numbers: Mapping[str, Any]) -> bool:
    """Whether the first update is the parameter itself where the learning rate is 0, as of a function that returns the new parameter.

    Args:
        function: as of trace().
        states: what they start from.
        numbers: as of run().
    """
    try:
        param = torch.linspace(-2, 2, 8, dtype=torch.float64, device="cpu")
        start = {name: torch.full_like(param, value) for name, value in states.items()}
        with np.errstate(all="ignore"):
            update, _ = run(function, torch.ones_like(param), param, start, lr=0.0, numbers=numbers, step=1.0)
        return torch.equal(update, param)
    except Exception:
        return False  # what torch says of tensors is told with their values, before the first step


def run(
    function: Callable[..., Any],
    grad: Tensor,
    param: Tensor,
    state: Mapping[str, Tensor],
    *,
    lr: Any,
    numbers: Mapping[str, Any],
    step: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What a user's function makes of float64 tensors: the update and the new states.

    Numbers, by name or place, lr and the step become 0-dimensional tensors, but for static options, which are no floats or ints.
    """
    rule = Rule(getattr(function, "__name__", "rule"), function)
    n = Numbers(rule, {name: host.tensor(value) for name, value in numbers.items()} | {"step": host.tensor(step)})
    with _running, warnings.catch_warnings(), torch.no_grad(), OneDtype():  # filters are all threads'
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy's functions on tensors
        update, new = outcome(rule, rule(grad, param, State(rule, state, lambda value: value), host.tensor(lr), n))

    def like(value: Any) -> Tensor:
        return torch.as_tensor(value, device=grad.device).to(grad.dtype).expand_as(grad)

    return like(update), {name: like(value) for name, value in new.items()}
