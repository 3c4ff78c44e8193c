"""What a step costs a CPU in each precision mode, beside float32 in the same rounds.

    python -m bench.studies.modes [--numel 16777216] [--rounds 15] [--threads 2] [--output bench/results]

One tensor, plain and centered with momentum, with so many threads and with one. Writes modes.json.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch

from bench.common.arguments import check_output, make_parser, writing
from bench.common.machine import machine
from bench.common.text import table
from fusedrms.tools.arguments import whole
from fusedrms.tools.files import write
from fusedrms.tools.variants import MODES, make, parse_mode

FIRST = "float32"
TIMED = tuple(mode for mode in MODES if mode.startswith((FIRST, "bfloat16")))
RULES = {"rmsprop": "plain", "rmsprop_centered_momentum": "centered, momentum"}


def _step(rule: str, mode: str, numel: int) -> Callable[[], object]:
    param = torch.nn.Parameter(torch.randn(numel).to(parse_mode(mode)[0]))
    param.grad = torch.randn_like(param)
    step = make(rule, mode, [param]).step
    step()
    return step


def timed(rule: str, numel: int, rounds: int) -> dict[str, dict[str, float]]:
    """Of each mode the median time of a step, and the median of what it was beside float32's in the same round."""
    steps, seconds = {mode: _step(rule, mode, numel) for mode in TIMED}, {mode: [] for mode in TIMED}
    for _ in range(rounds):
        for mode, step in steps.items():
            begin = time.perf_counter()
            step()
            seconds[mode].append(time.perf_counter() - begin)
    against = {mode: [a / b for a, b in zip(times, seconds[FIRST], strict=True)] for mode, times in seconds.items()}
    return {mode: dict(ms=1e3 * statistics.median(seconds[mode]), ratio=statistics.median(against[mode])) for mode in TIMED}


def _table(results: dict) -> list[str]:
    many, one = (results[kind] for kind in ("rules", "one_thread"))
    lines = []
    for mode in TIMED:
        rows = ((many[rule][mode], one[rule][mode]) for rule in RULES)
        cells = ((f"{row['ms']:.1f}", f"{row['ratio']:.2f}", f"{alone['ratio']:.2f}") for row, alone in rows)
        lines.append((f"`{mode}`", *(text for three in cells for text in three)))
    headers = ((f"ms, {name}", "of float32's", "with one thread") for name in RULES.values())
    return table(("mode", *(text for three in headers for text in three)), lines)


TABLES: dict[str, Callable[[dict], list[str]]] = {"modes": _table}


def main() -> int:
    parser = make_parser("bench.studies.modes", __doc__, output=True)
    for name, default in dict(numel=2**24, rounds=15, threads=2).items():
        parser.add_argument(f"--{name}", type=whole, default=default, help="(default: %(default)s)")
    given = parser.parse_args()
    check_output(parser, given.output)
    command = f"{parser.prog} --numel {given.numel} --rounds {given.rounds} --threads {given.threads}"
    found = {}
    for kind, n in dict(one_thread=1, rules=given.threads).items():
        torch.set_num_threads(n)
        found[kind] = {rule: timed(rule, given.numel, given.rounds) for rule in RULES}
    results = {**machine(torch.device("cpu"), command), "numel": given.numel, **found}
    print("\n".join(_table(results)))
    with writing(parser):
        write(given.output / "modes.json", json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
