"""A rule as source text for both drivers, and the function of such a text."""

import functools
import hashlib
import linecache
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..kernels import lang
from ..kernels.lang import jit, larger, like, quotient, smaller, tl
from ..kernels.rules import INFINITY
from .graph import INFIX, UNIFORM, Node, reachable

OPERATIONS = INFIX | {
    "quotient": "quotient({}, {})",
    "fma": "tl.fma({}, {}, {})",
    "sqrt": "tl.sqrt({})",
    "rsqrt": "tl.rsqrt({})",
    "abs": "tl.abs({})",
    "exp": "tl.exp({})",
    "log": "tl.log({})",
    "larger": "larger({}, {})",
    "smaller": "smaller({}, {})",
    "like": "like({}, {})",
    "where": "tl.where({}, {}, {})",
    "not": "{} == False",  # ~ is of integers to Numba
}
UNTYPED = "fma", "where", "larger", "smaller"  # literals beside a float64 are float32 to these functions of Triton
GLOBALS = dict(tl=tl, INFINITY=INFINITY, larger=larger, smaller=smaller, quotient=quotient, like=like)


def write(name: str, old: Mapping[str, Node], update: Node, new: Mapping[str, Node], more: str = "") -> tuple[str, str, dict[str, Node]]:
    """A rule's identifier, its source, and by name the numbers of the host's that it takes, in order.

    Args:
        name: what the identifier begins with.
        old, new: of each state what the rule is given, and what it returns.
        more: what the identifier is of beside the source.
    """
    nodes = reachable([update, *new.values()], UNIFORM)
    numbers = _numbers(nodes)
    names = {node: f"n_{one}" for one, node in numbers.items()}
    names |= {node: f"old_{one}" for one, node in old.items()} | {node: node.op for node in nodes if node.op in ("grad", "param", "lr")}
    for one, node in new.items():
        names.setdefault(node, f"new_{one}")
    names.setdefault(update, "update")
    lines = [f"{_tuple(f'old_{one}' for one in old)} = state"] if old else []
    lines += [f"{_tuple(f'n_{one}' for one in numbers)} = n"] if numbers else []
    for node in nodes:
        if node.args:
            names.setdefault(node, f"v{len(lines)}")
            operands = (_literal(arg.value, node) if arg.is_literal else names[arg] for arg in node.args)
            lines.append(f"{names[node]} = {OPERATIONS[node.op].format(*operands)}")
    lines.append(f"return {names[update]}, {_tuple(names[node] for node in new.values())}")
    body = "".join(f"    {line}\n" for line in lines)
    identifier = f"{re.sub(r'[^0-9A-Za-z_]', '_', name)}_{hashlib.sha256((body + more).encode()).hexdigest()[:12]}"
    return identifier, f"def {identifier}(grad, param, state, lr, n):\n{body}", numbers


def _numbers(nodes: Iterable[Node]) -> dict[str, Node]:
    """By name the values of the host's that nodes take, in the order of their first use."""
    taken = dict.fromkeys(arg for node in nodes for arg in node.args if arg.level < UNIFORM and not arg.is_literal)
    options = {node.name for node in taken if node.op == "number"}
    found: dict[str, Node] = {}
    for index, node in enumerate(taken):
        name = re.sub(r"\[(\d+)\]", r"_\1", node.name) if node.op == "number" else f"number_{index}"
        while name in found or (name != node.name and name in options):
            name += "_"
        found[name] = node
    return found


def _tuple(names: Iterable[str]) -> str:
    names = list(names)
    return f"({names[0]},)" if len(names) == 1 else f"({', '.join(names)})"


def _literal(value: float, of: Node) -> str:
    """Of an operation. Triton has no constant -0: it is 0."""
    text = repr(float(value) + 0.0).replace("inf", "INFINITY")
    if of.op in UNTYPED and float(np.float32(value)) != value:
        return f"like({'lr' if of.level == UNIFORM else 'grad'}, {text})"
    return text


@functools.cache
def function_of(source: str, name: str) -> Any:
    """The function `name` that a source text defines, as the drivers take rules."""
    file = f"<fusedrms rule {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # None: it is no file that might change
    scope: dict[str, Any] = GLOBALS | {"__name__": lang.__name__}  # Numba's disk cache imports it
    exec(compile(source, file, "exec"), scope)
    return jit(scope[name])
