"""Show the losses of two float32 runs of train_gpt.py side by side; exit with 1 if they differ by more than rounding.

    python examples/compare_runs.py runs/two runs/one

Each folder holds a run's metrics.csv. That processes share a batch changes the order in which float32 numbers are added up, and
nothing else: in 40 steps with a learning rate of 1e-4 that moved no training loss of 12 seeds by more than 4 units of rounding.
Training amplifies what rounding has changed, so with a rate ten times as large the losses differ visibly after some dozen steps.
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fusedrms.tools.printing import plain_where_needed

BOUND = 16 * 2**-24  # of a difference, as a share of the loss; 2**-24 is the unit of rounding of float32


def read(folder: str) -> dict[tuple[str, str], list[float]]:
    """By optimizer and step the losses that were measured: in training and, at some steps, on held-out text."""
    with open(Path(folder, "metrics.csv")) as file:
        return {
            (row["optimizer"], row["step"]): [float(row[key]) for key in ("train_loss", "held_out_loss") if row[key]]
            for row in csv.DictReader(file)
        }


def apart(a: float, b: float) -> float:
    """The difference as a share; infinite if there is none."""
    share = abs(a - b) / max(abs(a), abs(b), 1e-30)
    return share if share < math.inf else math.inf


def columns(optimizer: str, first: str, second: str) -> Table:
    result = Table("step", title=f"{optimizer}, losses in nats a byte")
    for header in (f"training\n{first}", f"\n{second}", f"held-out\n{first}", f"\n{second}", "largest\ndifference"):
        result.add_column(header, justify="right")
    return result


def compare(first: str, second: str, console: Console) -> bool:
    """Print the steps with a held-out loss; whether the losses of all steps agree."""
    one, other = read(first), read(second)
    if [(key, len(losses)) for key, losses in one.items()] != [(key, len(losses)) for key, losses in other.items()]:
        raise ValueError(f"{first} and {second} did not measure the same losses: they need the same --steps and optimizers")
    tables = {optimizer: columns(optimizer, Path(first).name, Path(second).name) for optimizer, _ in one}
    largest = 0.0
    for (optimizer, step), losses in one.items():
        others = other[optimizer, step]
        difference = max(map(apart, losses, others))
        largest = max(largest, difference)
        if len(losses) == 2:
            pairs = [f"{loss:.7f}" for pair in zip(losses, others, strict=True) for loss in pair]
            tables[optimizer].add_row(step, *pairs, f"{difference:.1e}")
    console.print(*tables.values(), sep="\n")
    console.print(f"Largest difference of all steps: {largest:.1e} of the loss; rounding is allowed {BOUND:.1e}.", highlight=False)
    return largest <= BOUND


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    plain_where_needed(sys.stdout)
    try:
        equal = compare(sys.argv[1], sys.argv[2], Console())
    except (ValueError, KeyError, OSError) as error:
        print(f"compare_runs.py: {error if isinstance(error, ValueError) else repr(error)}", file=sys.stderr)
        sys.exit(2)
    sys.exit(None if equal else "The losses differ by more than rounding, which more steps than 40 and higher rates than 1e-4 amplify.")
