"""The first thing to run on a GPU: a step of every rule and dtype, against the float64 reference and beside the CPU driver.

    python -m bench.gpu.first [--device cuda] [--quick] [--rows FILE]

A row for each: whether the first step is within its bounds; what a second one launches and copies, where torch's profiler knows; and
how far the second one is from the same step by the CPU driver, from the same values.
"""

import itertools
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bench.common.arguments import ROOT, writing
from bench.common.store import Row
from bench.common.text import figure
from bench.gpu.rows import append, parsed, reason, rows_parser
from bench.timing.profiler import profiled
from fusedrms.tools import variants

TESTS = str(ROOT / "tests")  # the reference, and what holds a step against it
SHAPES = [(1000,), (3, 5), (64, 257), (1,), (40_000,)]
QUICK = {"rules": ("rmsprop_centered_momentum", "smorms3"), "dtypes": ("float32", "bfloat16")}
ALL = {"rules": tuple(variants.RULES), "dtypes": variants.DTYPES}


def apart(one: Tensor, other: Tensor, before: Tensor) -> Tensor:
    """In units of the last place of a value, or of what it was before the step where that is larger, whose errors it has; float64.

    Integers: their difference.
    """
    kind = one.dtype
    one, other, before = (tensor.detach().cpu().double() for tensor in (one, other, before))
    worst = torch.finfo(torch.float64).max  # where one of both is no number
    units = torch.ones_like(one)
    if kind.is_floating_point:
        limits = torch.finfo(kind)
        largest = torch.stack([one.abs(), other.abs(), before.nan_to_num(0, 0, 0).abs()]).amax(0)
        _, exponent = largest.clamp(min=limits.smallest_normal).frexp()
        units = torch.ldexp(torch.full_like(one, limits.eps), exponent - 1)
    same = (one == other) | (one.isnan() & other.isnan())
    return torch.where(same, 0.0, ((one - other) / units).abs().nan_to_num(worst, worst))


def values(optimizer: Any) -> Iterable[tuple[str, Tensor]]:
    """All that a step updates."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            yield "param", param.detach()
            yield from ((name, value) for name, value in optimizer.state[param].items() if name != "step")


def distances(one: Any, other: Any, before: Iterable[Tensor]) -> dict[str, dict[str, float]]:
    """For each value: how many elements of how many differ, and by how many units of the last place at most; before: copies of one's."""
    found: dict[str, dict[str, float]] = {}
    for (name, a), (_, b), old in zip(values(one), values(other), before, strict=True):
        units = apart(a, b, old)
        entry = found.setdefault(name, dict(most_ulp=0.0, differ=0, of=0))
        entry["most_ulp"] = max(entry["most_ulp"], float(units.max()))
        entry["differ"] += int(units.count_nonzero())
        entry["of"] += units.numel()
    return found


def twin(optimizer: Any, rule: str, dtype: str) -> Any:
    """The same on the CPU, with equal values."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    copies = [torch.nn.Parameter(param.detach().cpu().clone()) for param in params]
    for copied, param in zip(copies, params, strict=True):
        copied.grad = param.grad.cpu().clone()
    other = variants.make(rule, dtype, copies)
    other.load_state_dict(optimizer.state_dict())
    return other


def look(rule: str, dtype: str, device: torch.device) -> Row:
    """The figures of a rule and dtype.

    Raises:
        AssertionError: a step is further from the reference than its bounds.
    """
    if TESTS not in sys.path:
        sys.path.append(TESTS)
    from tools import parameters, random_grads, step_and_check

    torch.manual_seed(0)
    params = parameters(SHAPES, str(device), getattr(torch, dtype))
    random_grads(params)
    optimizer = variants.make(rule, dtype, params)
    step_and_check(optimizer)
    random_grads(params)
    on_cpu = twin(optimizer, rule, dtype)
    before = [value.clone() for _, value in values(optimizer)]
    optimizer.step()  # gradients have moved: another one is steady
    on_cpu.step()
    found = distances(optimizer, on_cpu, before)
    return {**profiled(optimizer.step, device), "values": found}


def line(row: Row) -> str:
    """For people."""
    head = f"{row['rule']:26} {row['dtype']:9}"
    if row["failed"]:
        return f"{head} FAILED: {row['failed']}"
    unlike = {name: found for name, found in row["values"].items() if found["differ"]}
    far = ", ".join(f"{name} {figure(found['most_ulp'])} ulp in {found['differ']:,} of {found['of']:,}" for name, found in unlike.items())
    does = "" if row["launches"] is None else f"{row['launches']} launches, {row['copies']} copies, {row['waits']} waits; "
    return f"{head} {does}beside the CPU: {far or 'equal bits'}"


def main(argv: list[str] | None = None) -> int:
    """Exit code: 1 if a row failed."""
    parser = rows_parser("bench.gpu.first", __doc__)
    given, device = parsed(parser, argv)
    chosen = QUICK if given.quick else ALL
    rows: list[Row] = []
    for dtype, rule in itertools.product(chosen["dtypes"], chosen["rules"]):
        row: Row = dict(rule=rule, dtype=dtype, failed=None)
        try:
            row |= look(rule, dtype, device)
        except Exception as error:  # the next may be right
            row["failed"] = reason(error)
        print(line(row), flush=True)
        with writing(parser):
            append(given.rows, row)
        rows.append(row)
    failed = [row for row in rows if row["failed"]]
    worst = max((found["most_ulp"] for row in rows if not row["failed"] for found in row["values"].values()), default=None)
    print(f"{len(rows)} rules and dtypes, {len(failed)} failed; at most {figure(worst) or 'no'} ulp beside the CPU")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
