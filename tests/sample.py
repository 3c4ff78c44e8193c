"""Which cases of a test `make test` runs: as many as have every value of every parameter, in the interpreter four of these.

`make test-all` runs every combination.
"""

from collections import defaultdict
from typing import Any

import pytest

from fusedrms.kernels import lang

MOST = 4 if lang.interpreted() else None  # a case takes a second there


def exhaustive(*values: Any) -> Any:
    """A case of a parametrized test that `make test` leaves out."""
    return pytest.param(*values, marks=pytest.mark.exhaustive)


def _values(item: Any) -> set[tuple]:
    """A tuple for each parameter: its name and its value, or which object it is where it is no key of a set."""
    found = set()
    for name, value in item.callspec.params.items():
        try:
            found.add((name, type(value), value))
        except TypeError:
            found.add((name, id(value)))
    return found


def sampled(cases: list) -> list:
    """The first cases that have every value, each with as many new ones as any."""
    known = {item: _values(item) for item in cases}
    missing = set().union(*known.values())
    found = []
    while missing:
        best = max(cases, key=lambda item: len(known[item] & missing))  # the first of equals
        found.append(best)
        missing -= known[best]
    return found


def mark_the_rest(items: list) -> None:
    """Mark as exhaustive those cases of each test that `make test` need not run; on a GPU all run."""
    tests = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec") and not item.get_closest_marker("gpu") and not item.get_closest_marker("exhaustive"):
            tests[item.nodeid.partition("[")[0]].append(item)
    for cases in tests.values():
        for item in set(cases).difference(sampled(cases)[:MOST]):
            item.add_marker(pytest.mark.exhaustive)
