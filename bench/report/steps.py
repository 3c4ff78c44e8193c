"""The tables of a device's step.json that documents show."""

from collections.abc import Callable

from bench.common.store import BASELINE, BIG, CACHED, COMPILED, OURS, SMALL, Row, rows, times_as_fast
from bench.common.text import figure, ratio, table

WORKLOADS = {
    BIG: "2 tensors of 4096×4096",
    "GPT-2 small": "GPT-2 small, 148 tensors",
    SMALL: "2,000 tensors of 64",
    "A2C MLP": "an A2C network, 12 tensors",
}
OPTIONS = {"plain": "plain", "centered+momentum": "centered, momentum"}
FAMILY = {
    "centered+momentum, eps inside": "centered, momentum, eps inside",
    "Graves": "Graves",
    "SMORMS3": "SMORMS3",
    "clip-norm": "clip-norm",
}
Found = dict[tuple[str, str, str], Row]


def _steps(results: dict) -> Found:
    """Workload, algorithm and implementation -> row."""
    return {(row["workload"], row["algorithm"], row["implementation"]): row for row in rows(results)}


def _rate(row: Row) -> str:
    """Where caches are too small to help."""
    return figure(row["gb_per_s"]) if row["n_bytes"] * row["numel"] > CACHED else ""


def _ms(row: Row | None) -> str:
    return figure(row["ms"]) if row else ""


def _against(row: Row, other: Row | None) -> str:
    return ratio(times_as_fast(row, other)) if other else ""


def _torch(results: dict) -> list[str]:
    steps, lines = _steps(results), []
    for workload in (BIG, "GPT-2 small", SMALL, "A2C MLP"):
        for algorithm, options in OPTIONS.items():
            row = steps[workload, algorithm, OURS]
            others = (steps.get((workload, algorithm, name)) for name in (BASELINE, "torch single", COMPILED))
            lines.append((WORKLOADS[workload], options, _ms(row), *(_against(row, other) for other in others), _rate(row)))
    return table(("step of", "options", "ms", "against torch foreach", "torch single", "torch compiled", "GB/s"), lines)


def _family(results: dict) -> list[str]:
    steps, lines = _steps(results), []
    for workload in (BIG, SMALL):
        for algorithm, options in FAMILY.items():
            row = steps[workload, algorithm, OURS]
            lines.append((WORKLOADS[workload], options, _ms(row), ratio(row["ratio"]), _rate(row)))
    return table(("step of", "options", "ms", "against foreach", "GB/s"), lines)


def _host(results: dict) -> list[str]:
    times = {(row["n_tensors"], row["gradients"]): 1e3 * row["ms"] for row in rows(results, "gradients")}
    kinds = ("unmoved", "moved")
    lines = [
        (f"{n:,}", *(text for kind in kinds for text in (figure(times[n, kind]), f"{times[n, kind] / n:.3f}")))
        for n in sorted({n for n, _ in times})
    ]
    return table(("tensors", "gradients unmoved, µs", "µs a tensor", "all gradients moved, µs", "µs a tensor"), lines)


TABLES: dict[str, Callable[[dict], list[str]]] = {"torch": _torch, "family": _family, "host": _host}
