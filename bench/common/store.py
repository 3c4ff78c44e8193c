"""Result files: what is in them."""

import json
import os
import pathlib
from typing import Any

BASELINE, OURS, COMPILED = "torch foreach", "fusedrms", "torch compiled"  # implementations and workloads that reports name
BIG, SMALL = "2 of 4096x4096", "2,000 of 64"
CACHED = 2**27  # bytes; a step that moves fewer is helped by caches
STATISTICS = ("min", "max", "mean", "stddev", "median", "iqr", "ops", "outliers", "rounds", "iterations")  # what --benchmark-compare reads
LIMITS = ("copy", "stream")
KEPT = ("fullname", "params", "extra_info", "stats")

Row = dict[str, Any]


def short(value: Any) -> Any:
    """As results keep it: five digits of a float."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def times_as_fast(row: Row, other: Row) -> float:
    """By what both steps were beside ours, each in its own rounds, or by their medians."""
    if "against_ours" in row and "against_ours" in other:
        return row["against_ours"] / other["against_ours"]
    return other["ms"] / row["ms"]


def complete(results: dict) -> None:
    """Add to the rows of pytest-benchmark what follows from them, and drop what nobody reads."""
    # what was interrupted, or failed after its rounds, has no figures beside its time
    results["benchmarks"] = [entry for entry in results["benchmarks"] if entry["extra_info"] or "gradients" in entry["params"]]
    for entry in results["benchmarks"]:
        entry["extra_info"]["ms"] = 1e3 * entry["stats"]["median"]
    by_case = {tuple(entry["params"].values()): entry["extra_info"] for entry in results["benchmarks"]}
    limits = {
        entry["params"]["limit"]: entry["extra_info"]["n_bytes"] / entry["stats"]["min"]
        for entry in results["benchmarks"]
        if "limit" in entry["params"]
    }
    for entry in results["benchmarks"]:
        info, median = entry["extra_info"], entry["stats"]["median"]
        if "workload" in entry["params"]:
            workload, algorithm, _ = entry["params"].values()
            rate = info["n_bytes"] * info["numel"] / median
            info["gb_per_s"] = rate / 1e9
            for name in LIMITS:
                if limit := info.pop(name, limits.get(name)):  # as measured beside the step, if it was
                    info[f"of_{name}"] = rate / limit
            if base := by_case.get((workload, algorithm, BASELINE)):
                info["ratio"] = times_as_fast(info, base)
        elif "limit" in entry["params"]:
            info["gb_per_s"] = limits[entry["params"]["limit"]] / 1e9
        entry["extra_info"] = {key: short(value) for key, value in info.items() if value is not None and value == value}  # no NaN
        entry["stats"] = {key: short(entry["stats"][key]) for key in STATISTICS}
    results["benchmarks"] = [{key: entry[key] for key in KEPT} for entry in results["benchmarks"]]
    known = os.environ.get("GIT_COMMIT")  # what pytest-benchmark has found may be another repository then
    results["commit_info"] = {"id": known, "dirty": False} if known else {key: results["commit_info"][key] for key in ("id", "dirty")}


def rows(results: dict, kind: str = "workload") -> list[Row]:
    """The timings that have a parameter of that name, each with its parameters and figures."""
    return [{**entry["params"], **entry["extra_info"]} for entry in results["benchmarks"] if kind in entry["params"]]


def dumped(results: dict, key: str = "benchmarks") -> str:
    """JSON with one line for each entry of a list."""
    head = json.dumps({**results, key: None}, indent=1)
    lines = ",\n".join(json.dumps(entry) for entry in results[key])
    return head.replace(f'"{key}": null', f'"{key}": [\n{lines}\n ]') + "\n"


def load(path: pathlib.Path) -> dict:
    return json.loads(path.read_text())
