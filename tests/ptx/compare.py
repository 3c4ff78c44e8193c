"""Where the rows of two runs of a launch differ."""

import numpy as np

from .launches import Launch
from .stored import wide


def same(a: np.ndarray, b: np.ndarray, dtype: str) -> np.ndarray:
    """Bit for bit, but for what kind of NaN it is."""
    bits = np.dtype(f"u{a.itemsize}")
    equal = a.view(bits) == b.view(bits)
    return equal | (np.isnan(wide(a, dtype)) & np.isnan(wide(b, dtype))) if "float" in dtype else equal


def differing(made: Launch, a: list[list[np.ndarray]], b: list[list[np.ndarray]]) -> dict[str, int]:
    """Elements of each row whose bits are others in two runs."""
    found = {row.name: sum(int((~same(x, y, row.dtype)).sum()) for x, y in zip(a[r], b[r], strict=True)) for r, row in enumerate(made.rows)}
    return {name: n for name, n in found.items() if n}


def of_other_classes(made: Launch, a: list[list[np.ndarray]], b: list[list[np.ndarray]]) -> dict[str, int]:
    """Elements of each row that are finite, infinite or NaN in one run and something else in the other."""
    found = {}
    for r, row in enumerate(made.rows):
        for before, x, y in zip(made.memory[r], a[r], b[r], strict=True):
            if "float" in row.dtype:
                other = classes(wide(x, row.dtype)) != classes(wide(y, row.dtype))
                if row.name == "mem":  # an infinite one is multiplied by what may round to 0
                    other &= ~np.isinf(before)
                found[row.name] = found.get(row.name, 0) + int(other.sum())
    return {name: n for name, n in found.items() if n}


def classes(values: np.ndarray) -> np.ndarray:
    return np.select([np.isnan(values), values == np.inf, values == -np.inf], [3, 2, 1], 0)
