"""The first thing to run on a GPU: a step of every rule and dtype, against the float64 reference and beside the CPU driver.

    python -m bench.first [--device cuda] [--quick] [--rows FILE]

A row for each: whether the first step is within its bounds; what a second one launches and copies, where torch's profiler knows; and
how far the second one is from the same step by the CPU driver, from the same values.
"""

import argparse
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from bench.arguments import device_of, writing
from bench.store import Row
from bench.text import figure
from fusedrms.kernels import devices
from fusedrms.tools import variants
from fusedrms.tools.files import check_file, place

TESTS = str(pathlib.Path(__file__).parent.parent / "tests")  # the reference, and what holds a step against it
SHAPES = [(1000,), (3, 5), (64, 257), (1,), (40_000,)]
QUICK = {"rules": ("rmsprop_centered_momentum", "smorms3"), "dtypes": ("float32", "bfloat16")}
ALL = {"rules": tuple(variants.RULES), "dtypes": variants.DTYPES}
SPAN = "fusedrms: one step"
WAITS = ("StreamSynchronize", "EventSynchronize", "DeviceSynchronize", "CtxSynchronize")  # of the CUDA and HIP runtimes


def make_parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """Of a part of `make gpu` that writes rows."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", *devices.KINDS], default="cuda")
    parser.add_argument("--quick", action="store_true", help="a small part, to try it")
    parser.add_argument("--rows", type=place, help="file to which each row is added as a line of JSON, as soon as it is known")
    return parser


def parsed(parser: argparse.ArgumentParser, argv: list[str] | None) -> tuple[argparse.Namespace, torch.device]:
    """The arguments and the device, once it is known that rows can be written."""
    given = parser.parse_args(argv)
    try:
        if given.rows:
            check_file(given.rows)
            given.rows.touch()
    except OSError as error:
        parser.error(f"--rows {given.rows}: {error.strerror}; name a file that can be written")
    return given, device_of(parser, given.device)


def append(path: pathlib.Path | None, row: Row) -> None:
    """A line of JSON, which is all there or not at all."""
    if path:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def reason(error: BaseException) -> str:
    """In a line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


# what a step does, from the profiler


def tally(events: Iterable[Any]) -> dict[str, int]:
    """Launches, copies to the device and waits of the step that was profiled in SPAN."""
    events = list(events)
    marks = {event.name for event in events if event.device_type.name == "CPU"}  # are shown on the device, too
    spans = [event.time_range for event in events if event.name == SPAN and event.device_type.name == "CPU"]
    counts = dict(launches=0, copies=0, waits=0)
    for event in events:
        if event.device_type.name != "CPU":
            counts["copies"] += event.name.startswith(("Memcpy HtoD", "CopyHostToDevice"))
            counts["launches"] += event.name not in marks and not event.name.startswith(("Memcpy", "Memset", "Copy"))
        elif event.name.endswith(WAITS):  # the profiler itself waits after the span
            counts["waits"] += any(span.start <= event.time_range.start <= span.end for span in spans)
    return counts


def profiled(step: Callable[[], object], device: torch.device) -> dict[str, int | None]:
    """What a step does; None for each where the profiler does not know the device, which makes the step nonetheless."""
    activity = devices.KINDS[device.type].activity if devices.is_gpu(device) else None
    if activity is None:
        step()
        return dict(launches=None, copies=None, waits=None)
    devices.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity[activity]], acc_events=True) as profiler:
        with record_function(SPAN):
            step()
        devices.synchronize(device)
    return {**tally(profiler.events() or [])}


# how far two steps are from each other


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
    parser = make_parser("bench.first", __doc__)
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
