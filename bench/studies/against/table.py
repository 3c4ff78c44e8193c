"""The table of against.json."""

from collections.abc import Callable

from bench.common.store import Row
from bench.common.text import figure, ratio, table

GRID = "everywhere"  # the row of many cells
HEADER = ("row", "step of", "against", "times as fast, then", "now", "µs, then", "now", "then / now", "aim", "met")


def meets(row: Row) -> bool | None:
    """Whether the aims are met; None where there is none."""
    aims = [row["new_ratio"] >= row["at_least"]] if row["at_least"] is not None else []
    aims += [row["new_us"] <= row["at_most"]] if row["at_most"] is not None else []
    return all(aims) if aims else None


def slowest(rows: list[Row]) -> list[Row]:
    """Of the grid, the cell that is furthest below the baseline, or least above it; none where there is no grid."""
    grid = [row for row in rows if row["row"] == GRID]
    return [min(grid, key=lambda row: row["new_ratio"])] if grid else []


def _cells(row: Row) -> tuple[str, ...]:
    ratios = (f"{row[key]:.2f}×" if row[key] is not None else "" for key in ("old_ratio", "new_ratio"))
    least, most = row["at_least"], row["at_most"]
    aims = ([ratio(least)] if least is not None else []) + ([f"{most:g} µs"] if most is not None else [])
    times = figure(row["old_us"]), figure(row["new_us"]), f"{row['faster']:.2f}×"
    return row["row"], row["case"], row["against"], *ratios, *times, ", ".join(aims), {True: "yes", False: "no", None: ""}[meets(row)]


def line(row: Row) -> str:
    """Of the table."""
    return table((), [_cells(row)])[-1]


def _against(results: dict) -> list[str]:
    rows = results["rows"]
    worst = slowest(rows)
    return table(HEADER, [_cells(row) for row in rows if row["row"] != GRID or not meets(row) or row in worst])


TABLES: dict[str, Callable[[dict], list[str]]] = {"against": _against}
