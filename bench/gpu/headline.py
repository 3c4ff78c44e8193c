"""The figures that a GPU is wanted for, the most important first, each beside its aim.

    python -m bench.gpu.headline [--device cuda] [--quick] [--only NAME,...] [--rows FILE]

Times are medians of rounds that take all that is compared once. Those of a GPU are by its own clock, behind copies that keep it busy
until the host has launched; shares are of a copy's bandwidth in the same rounds. What fails is a row with its reason.
"""

import sys
from collections.abc import Callable

from bench.common.arguments import chosen, writing
from bench.common.store import Row
from bench.common.text import figure, percent, table
from bench.gpu.figures import MEASUREMENTS, measured
from bench.gpu.rows import append, parsed, rows_parser
from bench.gpu.scene import Scene
from fusedrms.tools.variants import words


def _shares(results: dict) -> list[str]:
    found = [row for row in results["headline"] if row["unit"] == "of copy"]
    figures = ((row, *map(figure, (row["bytes"], row["ms"], row["gb_per_s"]))) for row in found)
    lines = [(row["what"].partition(", 10⁹")[0], *numbers, percent(row["value"])) for row, *numbers in figures]
    return table(("step of 10⁹ parameters", "bytes a parameter", "ms", "GB/s", "of a copy's"), lines)


def _figures(results: dict) -> list[str]:
    found = [row for row in results["headline"] if row["unit"] != "of copy" and row["value"] is not None]

    def value(row: Row) -> str:
        return (percent if row["unit"].startswith("of a step") else figure)(row["value"])

    return table(("", "measured"), [(row["what"], f"{value(row)} {row['unit']}") for row in found])


def _cold(results: dict) -> list[str]:
    found = [row for row in results["headline"] if row.get("cold_us")]
    return table(
        ("step of", "from the cache, µs", "from memory, µs"), [(row["what"], *map(figure, (row["value"], row["cold_us"]))) for row in found]
    )


def _missed(results: dict) -> list[str]:
    found = [row for row in results["headline"] if row["met"] is False]
    return table(("", "measured", "aim"), [(row["what"], f"{figure(row['value'])} {row['unit']}", row["aim"]) for row in found])


TABLES: dict[str, Callable[[dict], list[str]]] = {"shares": _shares, "figures": _figures, "cold": _cold, "missed": _missed}


def line(found: Row) -> str:
    """For people."""
    if found.get("failed"):
        return f"FAILED: {found['what']}: {found['failed']}"
    value = found.get("note", "") if found["value"] is None else figure(found["value"])
    aim = f" (aim {found['aim']}{': MISSED' if found['met'] is False else ''})" if found["aim"] else ""
    figures = {name: each for name, each in found.items() if name not in ("what", "value", "unit", "aim", "met", "published")}
    details = ", ".join(f"{name} {figure(each)}" for name, each in figures.items() if isinstance(each, (int, float)))
    return f"{found['what']}: {value} {found['unit']}{aim}" + (f"; {details}" if details else "")


def main(argv: list[str] | None = None) -> int:
    """Exit code: 1 if a measurement failed; an aim that is missed is none."""
    parser = rows_parser("bench.gpu.headline", __doc__)
    parser.add_argument("--only", type=words, metavar="NAME,...", help=f"of {', '.join(MEASUREMENTS)}")
    given, device = parsed(parser, argv)
    only = chosen(parser, given.only, MEASUREMENTS)
    scene = Scene(device, given.quick)
    rows: list[Row] = []
    for name in only:
        for found in measured(scene, name):
            if given.quick and found["value"] is not None:  # aims are for what it is called, not for a small part of it
                found |= dict(what=f"{found['what']}, in small", aim=None, met=None)
            print(line(found), flush=True)
            with writing(parser):
                append(given.rows, found)
            rows.append(found)
        scene.tidy()
    failed, missed = sum(bool(found.get("failed")) for found in rows), sum(found["met"] is False for found in rows)
    print(f"{len(rows)} figures, {failed} failed, {missed} missed their aim")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
