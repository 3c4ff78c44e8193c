"""How far a step on a GPU is from the same on a CPU, by the approximations that a GPU is allowed.

    python -m bench.studies.bits [--output bench/results]

The kernels run as PTX, as in the tests, and beside the CPU driver, from the same values; parameters and momentum buffers start
from 0, so that what comes out is the update. Writes bits.json.
"""

import itertools
import sys
from collections.abc import Callable

import numpy as np

from bench.common.arguments import ROOT, check_output, make_parser, writing
from bench.common.machine import machine
from bench.common.store import dumped
from bench.common.text import figure, table
from fusedrms.kernels import devices
from fusedrms.kernels.lang import interpreted
from fusedrms.tools.files import write
from fusedrms.tools.variants import RULES

MODES = ("float32", "float32+8bit", "float64")
SEEDS = (1, 2, 3)  # of approximations that are off by as much as the PTX ISA allows
N = 50_000  # elements


def _off(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference: in units in the last place; of codes in codes."""
    unit = 1 if a.dtype.kind in "iu" else np.spacing(np.maximum(np.abs(a), np.abs(b)))
    return float(np.max(np.abs(a.astype(np.longdouble) - b) / unit))


def compared(rule: str, mode: str) -> list[dict]:
    """A row for each value that a step updates."""
    from ptx.launches import Launch

    made = Launch(rule, mode, "random", numels=(N,))
    for row, (array,) in zip(made.rows, made.memory, strict=True):
        if row.name in ("param", "momentum_buffer"):
            array[:] = 0
    cpu, *gpu = made.on_cpu(), *(made.on_gpu(seed=seed) for seed in (None, *SEEDS))
    found = []
    for r, row in enumerate(made.rows):
        if row.value:
            differ = [float(np.mean(run[r][0] != cpu[r][0])) for run in gpu]
            off = [_off(run[r][0], cpu[r][0]) for run in gpu]
            worst = dict(differ_at_worst=round(max(differ), 6), off_at_worst=round(max(off), 2))
            unit = "codes" if row.dtype in ("int8", "uint8") else "ulp"
            found.append(dict(rule=rule, mode=mode, value=row.name, unit=unit, differ=round(differ[0], 6), off=round(off[0], 2), **worst))
    return found


def _table(results: dict) -> list[str]:
    lines = []
    for row in results["values"]:
        if row["off_at_worst"]:
            cells = (
                f"{figure(100 * row[f'differ{at}'])}%, {figure(row[f'off{at}'])} {row['unit']}" if row[f"off{at}"] else "none"
                for at in ("", "_at_worst")
            )
            name = row["value"].removesuffix("_2")
            value = "update" if name == "param" else f"`{name}`" + (", scale" if row["value"].endswith("_2") else "")
            lines.append((f"`{row['rule']}`", row["mode"], value, *cells))
    return table(("rule", "mode", "value", "approximations rounded right", "as bad as the PTX ISA allows"), lines)


TABLES: dict[str, Callable[[dict], list[str]]] = {"bits": _table}


def main() -> None:
    sys.path.append(str(ROOT / "tests"))  # the machine that runs PTX
    parser = make_parser("bench.studies.bits", __doc__, output=True)
    args = parser.parse_args()
    if interpreted():
        parser.error("TRITON_INTERPRET is set: the interpreter compiles nothing; unset it")
    check_output(parser, args.output)
    values = [row for rule, mode in itertools.product(RULES, MODES) for row in compared(rule, mode)]
    results = {**machine(devices.find("cpu"), parser.prog), "values": values}
    print("\n".join(_table(results)))
    with writing(parser):
        write(args.output / "bits.json", dumped(results, "values"))


if __name__ == "__main__":
    main()
