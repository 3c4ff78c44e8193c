"""The option skip_above: what its value may be, and that all parameter groups that have it have the same."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from .checks import as_tuple, fits_float, text

SKIP_ABOVE = "skip_above"
FEWEST, MOST = 2, 1024  # steps of a window


class SkipAbove(NamedTuple):
    """A step is left out whose norm is above `factor` times the median of the last `window` accepted ones."""

    factor: float
    window: int


def skip_above(group: dict[str, Any]) -> SkipAbove | None:
    """The option of a parameter group; ValueError if it is wrong."""
    value = as_tuple(group.get(SKIP_ABOVE))
    if value is None:
        return None
    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(
            f"{SKIP_ABOVE}={text(group[SKIP_ABOVE])} is not supported: it must be (factor, window), a finite number > 1 and a whole number "
            "of steps, (5.0, 128) say, or None to leave no step out"
        )
    factor, window = value
    shown = f"{SKIP_ABOVE}=({text(factor)}, {text(window)})"
    if not isinstance(factor, int | float) or not fits_float(factor) or not 1 < factor < math.inf:
        raise ValueError(f"{shown} is not supported: its factor, by which a median is multiplied, must be a finite number > 1")
    if not isinstance(window, int) or not FEWEST <= window <= MOST:
        raise ValueError(f"{shown} is not supported: its window must be a whole number of steps from {FEWEST} to {MOST}")
    return SkipAbove(float(factor), window)


def agreed(options: Iterable[SkipAbove | None]) -> SkipAbove | None:
    """That of all parameter groups, of which some may have none; ValueError if two differ."""
    first: tuple[int, SkipAbove] | None = None
    for g, option in enumerate(options):
        if option is None:
            continue
        if first and option != first[1]:
            raise ValueError(
                f"parameter group {g} has {SKIP_ABOVE}={tuple(option)}, parameter group {first[0]} has {tuple(first[1])}: it is about the "
                "norm of all gradients together; set the same in both, or None in one"
            )
        first = first or (g, option)
    return first[1] if first else None
