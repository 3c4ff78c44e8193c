"""stats.csv: what the steps that FusedRMSProp measures came to, a row for each parameter and step.

In float16 the gradients are those of the scaled loss.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from fusedrms import FusedRMSProp
from fusedrms.tools.files import check_file, write
from training.learner import Learner
from training.parallel import decided_by_first

STATS = "stats.csv"
RATIO = "update_ratio"


def is_measured(step: int, every: int) -> bool:
    """Whether a step, numbered from 1, is: the first, and each so many steps after it."""
    return every > 0 and (step - 1) % every == 0


def stats_option(every: int, step: int) -> int:
    """The optimizer's option stats, if it is made after a step of the run: it counts from there, so it may have to measure more often."""
    return math.gcd(every, step) if every else 0


def lines(rows: list[list]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    return file.getvalue()


def is_whole(header: list[str], row: list[str]) -> bool:
    """Whether a row, which a killed run may have left half written, has all its numbers."""
    try:
        return header.index(RATIO) > 1 and len(row) == len(header) and row[0].isdecimal() and all(float(x) is not None for x in row[2:])
    except ValueError:
        return False


def begin(folder: Path, step: int) -> None:
    """Leave the rows up to a step, after which the run goes on."""
    path = folder / STATS
    check_file(path)  # a pipe would block
    if path.exists():
        with path.open(newline="", errors="replace") as file:
            header, *rows = [*csv.reader(file)] or [[]]
        kept = [row for row in rows if is_whole(header, row) and int(row[0]) <= step]
        if kept:
            write(path, lines([header, *kept]))
        else:
            path.unlink()


def measure(folder: Path, step: int, learners: list[Learner]) -> None:
    """Append what a measured step came to; all processes call it, since each may hold a part of each parameter."""
    (optimizer,) = (learner.optimizer for learner in learners if isinstance(learner.optimizer, FusedRMSProp))
    stats = optimizer.stats()

    def append() -> None:
        values, path = stats.as_dict(), folder / STATS
        rows = [[step, name, *(values[f"{name}/{key}"] for key in found)] for name, found in stats.parameters.items()]
        header = [["step", "parameter", *found] for found in [*stats.parameters.values()][:1] if not path.exists()]
        with path.open("a", newline="") as file:
            file.write(lines([*header, *rows]))

    decided_by_first(append)


def ratios(folder: Path) -> dict[int, dict[str, float]]:
    """The update ratios by step and parameter; none if nothing was measured."""
    found: dict[int, dict[str, float]] = {}
    if (folder / STATS).is_file():
        with (folder / STATS).open(newline="", errors="replace") as file:
            for row in csv.DictReader(file):
                found.setdefault(int(row["step"]), {})[row["parameter"]] = float(row[RATIO])
    return found
