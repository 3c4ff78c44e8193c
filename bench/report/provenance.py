"""Where the figures of a result file come from, for reports and documents."""

from collections.abc import Callable

from bench.common.machine import GUESTS
from bench.common.text import table

PACKAGES = ("python", "torch", "triton", "numba", *GUESTS, "scikit-learn", "gymnasium")


def machine_of(results: dict) -> dict:
    """What bench.common.machine has found; pytest-benchmark keeps it under a key of its own."""
    return results.get("machine_info", results)


def device(results: dict) -> str:
    machine = machine_of(results)
    return f"{machine['device']}, {machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"


def versions(results: dict) -> str:
    machine = machine_of(results)
    return ", ".join(f"{name} {machine[name]}" for name in PACKAGES if machine.get(name))


def commit(results: dict) -> str:
    """With the day, and whether the checkout had changes besides."""
    machine = machine_of(results)
    changed = results.get("changed") or results.get("commit_info", {}).get("dirty")
    return f"{machine['commit'][:10]}{' with changes' if changed else ''}, {machine['date']}"


def _provenance(results: dict) -> list[str]:
    row = (device(results), versions(results), commit(results), f"`{machine_of(results)['command']}`")
    return table(("device", "versions", "commit", "command"), [row])


TABLES: dict[str, Callable[[dict], list[str]]] = {"provenance": _provenance}
