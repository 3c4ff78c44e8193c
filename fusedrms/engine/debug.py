"""FUSEDRMS_DEBUG=1: every step is verified, and says what has changed since the last one."""

import os
import sys
from typing import TYPE_CHECKING, Any

import torch

from .ownership.memory import Named, check_apart, check_memory

if TYPE_CHECKING:
    from .ownership.facts import Owned
    from .tables.plan import Plan

ENVIRONMENT = "FUSEDRMS_DEBUG"
ON = os.environ.get(ENVIRONMENT, "0") not in ("", "0")
_OBJECT = "object"

Facts = dict[str, dict[str, Any]]  # of options and of what a step reads and writes, by its name; they keep no tensor alive


def watch(groups: list[dict[str, Any]], plan: "Plan", owned: "Owned", before: Facts | None, why: str | None) -> Facts:
    """Verify a step that is about to be launched, and say what has changed.

    Args:
        groups: the optimizer's parameter groups.
        plan, owned: the step's.
        before: what this returned for the step before.
        why: tables were made anew; None: they were not.

    Raises:
        RuntimeError: memory that is missing or shared, or a table that is not finite or does not say what it should.
    """
    touched = plan.touched(owned)
    check_memory(touched)
    check_apart(touched)
    plan.verify(touched)
    now = {one.name: _facts(one) for one in touched} | {f"parameter group {g}": _options(group) for g, group in enumerate(groups)}
    lines = _difference(before, now) if before is not None else []
    if why:
        lines = [f"tables made for {len(plan.names)} parameters, {why}", *lines]
    for line in lines:
        print(f"fusedrms: {line}", file=sys.stderr)
    return now


def _facts(one: Named) -> dict[str, Any]:
    tensor = one.tensor
    facts = dict(device=tensor.device, dtype=tensor.dtype, shape=tuple(tensor.shape), strides=tensor.stride())
    if not one.written:  # that gradients are new ones is no news
        return {**facts, "address modulo 16": tensor.data_ptr() % 16}
    return {_OBJECT: id(tensor), **facts, "address": hex(tensor.data_ptr())}


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """Those that a schedule does not set at each step."""
    return {key: value for key, value in group.items() if key != "lr" and isinstance(value, int | float | str | torch.dtype | None)}


def _difference(before: Facts, now: Facts) -> list[str]:
    """In words, a line for each tensor and parameter group."""
    lines = [f"{name} is gone" for name in before.keys() - now.keys()] + [f"{name} is new" for name in now.keys() - before.keys()]
    for name in before.keys() & now.keys():
        a, b = before[name], now[name]
        changed = [what for what in {**a, **b} if a.get(what) != b.get(what)]
        if changed:
            said = (f"{what} {a.get(what)} -> {b.get(what)}" if what != _OBJECT else "another object" for what in changed)
            lines.append(f"{name}: {', '.join(said)}")
    return sorted(lines)
