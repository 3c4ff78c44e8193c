"""The tables of family.json and of all presets."""

import statistics
from collections.abc import Callable
from typing import Any

from bench.common.text import figure, table
from fusedrms.presets.family import HEADERS, find

BASELINE = "torch_rmsprop"
HEADER = "the same by default", "ε", "numbers", "v from", "averages", "quadratic, loss", "digits, accuracy", "CartPole, return"
ABOUT = "eps", "numbers", "start", "averages"

Group = dict[str, Any]
Values = list[float | None]


def names_of(group: Group) -> list[str]:
    return [name for names in group["presets"] for name in names]


def baseline(groups: list[Group]) -> Group:
    """The group of torch's rule."""
    return next(group for group in groups if BASELINE in names_of(group))


def median(values: Values) -> float | None:
    """None if a run gave no finite number."""
    finite = [value for value in values if value is not None]
    return statistics.median(finite) if len(finite) == len(values) else None


def beside(values: Values, base: Values, compare: Callable[[float, float], float]) -> float | None:
    """The median of what each seed says."""
    pairs = zip(values, base, strict=True)
    return median([None if one is None or other is None else compare(one, other) for one, other in pairs])


def _ratio(values: Values, base: Values) -> str:
    found = beside(values, base, lambda one, other: one / other)
    return "diverged" if found is None else f"{figure(median(values))} ({found:.3g}×)"


def _difference(values: Values, base: Values, unit: str = "") -> str:
    found = beside(values, base, lambda one, other: one - other)
    return "diverged" if found is None else f"{median(values):.1f}{unit} ({found + 0.0:+.1f})"


def _presets(group: Group) -> str:
    return "; ".join(", ".join(f"`{name}`" for name in names) for names in group["presets"])


def _compared(results: dict) -> list[str]:
    groups = results["groups"]
    base = baseline(groups)
    rows = [
        (
            _presets(group),
            *(group[key] for key in ABOUT),
            _ratio(group["quadratic"], base["quadratic"]),
            _difference(group["digits"], base["digits"], " %"),
            _difference(group["cartpole"], base["cartpole"]),
        )
        for group in groups
    ]
    return table(HEADER, rows)


def _every(_: dict) -> list[str]:
    rows = []
    for member in find():
        name, system, version, *rest = (getattr(member, key) for key in ("name", "system", "version"))
        columns = member.averages, member.eps, member.lr, member.start, member.clipping, member.decay, member.numbers
        rows.append((f"`{name}`", f"{system}, {version}", *rest, *columns))
    return table(HEADERS, rows)


TABLES: dict[str, Callable[[dict], list[str]]] = {"compared": _compared, "presets": _every}
