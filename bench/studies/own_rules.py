"""AdamW as a rule of one's own, that of examples/own_rules.py, beside torch.optim.AdamW on the CPU, in the same rounds.

    python -m bench.studies.own_rules [--rounds 9] [--output bench/results]

Two float32 tensors of 4096x4096, and 1,000 of 64 elements, on a quiet machine and while a process computes on each core. Where in memory
tensors lie is worth some percent: each is made several times, in another order. Times and ratios are medians over all rounds. Before it is
timed the first steps are compared with torch's. Writes own_rules.json.
"""

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from bench.common.arguments import check_output, make_parser, writing
from bench.common.machine import machine
from bench.common.store import dumped, short
from bench.common.text import figure, table
from fusedrms.kernels import devices
from fusedrms.kernels.lang import interpreted
from fusedrms.tools.arguments import whole
from fusedrms.tools.files import write
from fusedrms.tools.noise import busy
from own_rules import AdamW

WARM = 3  # rounds that do not count
PLACES = 5  # how often tensors are made anew
OPTIONS: dict[str, Any] = dict(lr=1e-3, weight_decay=0.01)
OTHERS: dict[str, dict[str, Any]] = {"torch fused": dict(fused=True), "torch foreach": dict(foreach=True)}


class Workload(NamedTuple):
    name: str
    shapes: list[tuple[int, ...]]
    repeats: int  # steps that are timed together


WORKLOADS = (Workload("2 of 4096x4096", [(4096, 4096)] * 2, 1), Workload("1,000 of 64", [(64,)] * 1000, 5))


def rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


def _optimizers(shapes: list[tuple[int, ...]], place: int) -> dict[str, torch.optim.Optimizer]:
    """Each with parameters of its own, made in an order that the place decides."""
    made = {}
    for name in rotated(["ours", *OTHERS], place):
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(shape, device="cpu")) for shape in shapes]
        for param in params:
            param.grad = torch.randn_like(param)
        made[name] = AdamW(params, **OPTIONS) if name == "ours" else torch.optim.AdamW(params, **OPTIONS, **OTHERS[name])
    return made


def largest_difference(optimizers: dict[str, torch.optim.Optimizer]) -> float:
    """Between parameters of ours and torch's, in steps of the learning rate."""
    ours, torchs = (optimizers[name].param_groups[0]["params"] for name in ("ours", "torch fused"))
    return max(float((a - b).detach().abs().max()) for a, b in zip(ours, torchs, strict=True)) / OPTIONS["lr"]


def timed(optimizers: dict[str, torch.optim.Optimizer], repeats: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the steps of each, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for k in range(rounds):
        for name in rotated(list(optimizers), k):
            begin = time.perf_counter()
            for _ in range(repeats):
                optimizers[name].step()
            times[name].append(1e3 * (time.perf_counter() - begin) / repeats)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, float]:
    """Median milliseconds of each, and how many times as fast as each other ours is in the median round."""
    found = {f"ms {name}": statistics.median(each) for name, each in times.items()}
    for name in OTHERS:
        found[f"of {name}"] = statistics.median(b / a for a, b in zip(times["ours"], times[name], strict=True))
    return found


def _row(workload: Workload, rounds: int, is_busy: bool) -> dict:
    times: dict[str, list[float]] = {name: [] for name in ("ours", *OTHERS)}
    difference = 0.0
    for place in range(PLACES):
        optimizers = _optimizers(workload.shapes, place)
        timed(optimizers, 1, WARM)
        difference = max(difference, largest_difference(optimizers))
        with busy() if is_busy else contextlib.nullcontext():
            for name, each in timed(optimizers, workload.repeats, rounds).items():
                times[name] += each
    row = dict(workload=workload.name, busy=is_busy, difference=difference, **summary(times))
    return {key: short(value) for key, value in row.items()}


def _rows(rounds: int) -> list[dict]:
    return [_row(workload, rounds, is_busy) for workload in WORKLOADS for is_busy in (False, True)]


def _table(results: dict) -> list[str]:
    header = "tensors", "machine", "ms of a step", *(f"{name}, ms" for name in OTHERS), *(f"times as fast as {name}" for name in OTHERS)
    return table(
        header,
        [
            (
                row["workload"],
                "busy" if row["busy"] else "quiet",
                figure(row["ms ours"]),
                *(figure(row[f"ms {name}"]) for name in OTHERS),
                *(f"{row[f'of {name}']:.2f}×" for name in OTHERS),
            )
            for row in results["rows"]
        ],
    )


TABLES: dict[str, Callable[[dict], list[str]]] = {"own rules": _table}


def main() -> None:
    parser = make_parser("bench.studies.own_rules", __doc__, output=True)
    parser.add_argument("--rounds", type=whole, default=9, help="of each step, for each of 5 places (default: 9)")
    args = parser.parse_args()
    if interpreted():
        parser.error("TRITON_INTERPRET is set: what the interpreter takes is no measure; unset it")
    check_output(parser, args.output)
    results = {**machine(devices.find("cpu"), f"{parser.prog} --rounds {args.rounds}"), "rounds": args.rounds, "rows": _rows(args.rounds)}
    print("\n".join(_table(results)))
    with writing(parser):
        write(args.output / "own_rules.json", dumped(results, "rows"))


if __name__ == "__main__":
    main()
