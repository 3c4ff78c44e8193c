"""The table of against.json."""

from collections.abc import Callable

from bench.common.store import Row
from bench.common.text import figure, ratio, table

HEADER = ("row", "", "against", "times as fast, then", "now", "µs, then", "now", "then / now", "aim", "met")


def meets(row: Row) -> bool | None:
    """Whether the aims are met; None where there is none."""
    aims = []
    if (least := row["at_least"]) is not None:
        aims.append(row["new_ratio"] >= least)
    if (most := row["at_most"]) is not None:
        aims.append(row["new_us"] <= most)
    return all(aims) if aims else None


def _aim(row: Row) -> str:
    least, most = row["at_least"], row["at_most"]
    return ", ".join([*([f"{ratio(least)}"] if least else []), *([f"{most:g} µs"] if most else [])])


def line(row: Row) -> tuple[str, ...]:
    ratios = (f"{row[key]:.2f}×" if row[key] is not None else "" for key in ("old_ratio", "new_ratio"))
    met = {True: "yes", False: "no", None: ""}[meets(row)]
    times = figure(row["old_us"]), figure(row["new_us"]), f"{row['old_us'] / row['new_us']:.2f}×"
    return row["row"], row["case"], row["against"], *ratios, *times, _aim(row), met


def summary(rows: list[Row]) -> list[Row]:
    """All rows, but of a row with many cases the one that is furthest from the baseline."""
    worst: dict[str, Row] = {}
    for row in rows:
        if row["row"] == "everywhere":
            worst[row["row"]] = min(worst.get(row["row"], row), row, key=lambda row: row["new_ratio"])
    return [row for row in rows if row["row"] not in worst] + list(worst.values())


def below(rows: list[Row]) -> list[Row]:
    """Cells of the grid where a step is slower than the baseline, the slowest first."""
    return sorted((row for row in rows if row["row"] == "everywhere" and row["new_ratio"] < 1), key=lambda row: row["new_ratio"])


def _against(results: dict) -> list[str]:
    return table(HEADER, map(line, summary(results["rows"])))


TABLES: dict[str, Callable[[dict], list[str]]] = {"against": _against}
