"""What the host computes of a rule in float64: expressions of options, the step and literals, as one Python function.

Values are floats, or 0-dimensional float64 tensors, which nothing here reads: a step on a GPU need not wait.
"""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# values are floats or tensors, alone or in whatever a function of these returns

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .graph import INFIX, Node, reachable

# every operation of a host value, as Python writes it
OPERATIONS = INFIX | {
    "neg": "-{}",
    "pow": "power({}, {})",
    "abs": "abs({})",
    "sqrt": "sqrt({})",
    "exp": "exp({})",
    "log": "log({})",
    "larger": "larger({}, {})",
    "smaller": "smaller({}, {})",
    "where": "where({}, {}, {})",
    "not": "{} ^ True",
    "float": "as_float({})",
}


def power(x: Any, y: Any) -> Any:
    result = x**y
    return math.nan if isinstance(result, complex) else result  # of a negative number, where torch has NaN


def sqrt(x: Any) -> Any:
    return x.sqrt() if isinstance(x, Tensor) else math.sqrt(x)


def exp(x: Any) -> Any:
    return x.exp() if isinstance(x, Tensor) else math.exp(x)


def log(x: Any) -> Any:
    return x.log() if isinstance(x, Tensor) else math.log(x)


def as_float(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) else float(x)


def where(condition: Any, a: Any, b: Any) -> Any:
    if not isinstance(condition, Tensor):
        return a if condition else b
    # of two floats torch would make a tensor of the default type
    a, b = (x if isinstance(x, Tensor) else torch.full((), x, dtype=torch.float64, device=condition.device) for x in (a, b))
    return torch.where(condition, a, b)


def larger(a: Any, b: Any) -> Any:
    """A NaN of either stays."""
    return where((a > b) | (a != a), a, b)


def smaller(a: Any, b: Any) -> Any:
    return where((a < b) | (a != a), a, b)


FUNCTIONS = dict(
    power=power, sqrt=sqrt, exp=exp, log=log, as_float=as_float, where=where, larger=larger, smaller=smaller, inf=math.inf, nan=math.nan
)


def evaluate(op: str, *values: Any) -> Any:
    """One operation of literals."""
    return ieee(eval(f"lambda {', '.join('abc'[: len(values)])}: {OPERATIONS[op].format(*'abc')}", dict(FUNCTIONS)), *values)


def write(numbers: Mapping[str, Node]) -> str:
    """Source of two functions: `fixed(options)`, all numbers in their order, and `per_step(options, step)`, those that the step is in."""
    per_step = {name: node for name, node in numbers.items() if node.per_step}
    fixed = [None if node.per_step else node for node in numbers.values()]
    names, lines = _lines([node for node in fixed if node])
    results = "".join(f"{names[node] if node else 'nan'}, " for node in fixed)
    text = "\n    ".join(["def fixed(options):", *lines, f"return ({results})"])
    names, lines = _lines(list(per_step.values()))
    results = ", ".join(f"{name!r}: {names[node]}" for name, node in per_step.items())
    return text + "\n\n\n" + "\n    ".join(["def per_step(options, step):", *lines, f"return {{{results}}}"]) + "\n"


def _lines(results: Sequence[Node]) -> tuple[dict[Node, str], list[str]]:
    """An assignment for each operation that the results need."""
    names: dict[Node, str] = {}
    lines: list[str] = []
    for node in reachable(results):
        if node.op == "literal":
            names[node] = repr(node.value) if node.value >= 0 else f"({node.value!r})"
        elif node.op == "step":
            names[node] = "step"
        else:
            text = f"options[{node.name!r}]" if node.op == "number" else OPERATIONS[node.op].format(*(names[arg] for arg in node.args))
            names[node] = f"v{len(lines)}"
            lines.append(f"{names[node]} = {text}")
    return names, lines


@functools.cache
def functions(text: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Those of write()."""
    scope: dict[str, Any] = dict(FUNCTIONS)
    exec(compile(text, "<numbers of a fusedrms rule>", "exec"), scope)
    return _guarded(scope["fixed"]), _guarded(scope["per_step"])


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except (ArithmeticError, ValueError):
            return ieee(function, *args)

    return call


def tensor(value: Any) -> Any:
    """A float or int as a 0-dimensional tensor on the CPU, which goes with those of any device; anything else as it is."""
    is_number = isinstance(value, float | int) and not isinstance(value, bool)
    return torch.tensor(value, dtype=torch.float64, device="cpu") if is_number else value


def _tensors(value: Any) -> Any:
    return {name: tensor(one) for name, one in value.items()} if isinstance(value, Mapping) else tensor(value)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def ieee(function: Callable[..., Any], *args: Any) -> Any:
    """Its result where Python's floats raise: infinity or NaN, as torch has it."""
    given = [one for arg in args for one in (arg.values() if isinstance(arg, Mapping) else (arg,))]
    result = function(*map(_tensors, args))
    if any(isinstance(one, Tensor) for one in given):
        return result
    if isinstance(result, dict):
        return {name: _number(x) for name, x in result.items()}
    return tuple(map(_number, result)) if isinstance(result, tuple) else _number(result)
