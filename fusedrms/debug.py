"""FUSEDRMS_DEBUG=1: every step is verified, and says what has changed since the last one."""

import os
import sys
from typing import TYPE_CHECKING

from torch import Tensor

from .memory import check_apart, check_memory

if TYPE_CHECKING:
    from .kernels.addresses import Owned
    from .plan import Plan

ENVIRONMENT = "FUSEDRMS_DEBUG"
ON = os.environ.get(ENVIRONMENT, "0") not in ("", "0")


Facts = dict[str, tuple]  # of what a step reads and writes, by name; they keep nothing alive


def watch(plan: "Plan", owned: "Owned", before: Facts | None, why: str | None) -> Facts:
    """Verify a step that is about to be launched, and say what has changed.

    Args:
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
    now = {name: _facts(tensor) for name, tensor, _ in touched}
    lines = _difference(before, now) if before is not None else []
    if why:
        lines = [f"tables made for {len(plan.names)} parameters, {why}", *lines]
    for line in lines:
        print(f"fusedrms: {line}", file=sys.stderr)
    return now


def _facts(tensor: Tensor) -> tuple:
    return id(tensor), str(tensor.device), str(tensor.dtype), tuple(tensor.shape), tensor.stride(), hex(tensor.data_ptr())


_SAID = "object", "device", "dtype", "shape", "strides", "address"


def _difference(before: Facts, now: Facts) -> list[str]:
    """In words, a line for each tensor; that gradients are new ones is no news."""
    lines = [f"{name} is gone" for name in before.keys() - now.keys()] + [f"{name} is new" for name in now.keys() - before.keys()]
    for name in before.keys() & now.keys():
        changed = [k for k, (a, b) in enumerate(zip(before[name], now[name], strict=True)) if a != b]
        if name.endswith(".grad"):
            changed = [k for k in changed if k not in (0, 5)]
        if changed:
            what = (f"{_SAID[k]} {before[name][k]} -> {now[name][k]}" if k else "another object" for k in changed)
            lines.append(f"{name}: {', '.join(what)}")
    return sorted(lines)
