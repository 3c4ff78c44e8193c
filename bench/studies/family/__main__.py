"""All presets, each with its numbers by default but the same learning rate, on three small problems.

    python -m bench.studies.family [--seeds 5] [--output bench/results]

A noisy quadratic, a convnet on scikit-learn's digits, and an A2C on gymnasium's CartPole, on one thread. Presets whose options are equal
by default are run once. Takes a quarter of an hour. Writes family.json and family.png; needs the packages of the extra `study`.
"""

import math
import sys
import time
from importlib.metadata import version

import torch

from bench.common.arguments import check_output, make_parser, writing
from bench.common.machine import machine, one_thread
from bench.common.store import dumped, short
from bench.studies.family.groups import about, alike, equal_by_default, kinship
from bench.studies.family.problems import PROBLEMS, Result, missing
from bench.studies.family.table import ABOUT, TABLES, Group
from fusedrms.presets.preset import PRESETS
from fusedrms.tools.files import write


def runs(name: str, seeds: int) -> list[Result]:
    """Of a preset, problem after problem."""
    return [problem.run(PRESETS[name], problem.lr, seed) for problem in PROBLEMS.values() for seed in range(seeds)]


def figures(found: list[Result]) -> dict[str, list[float | None]]:
    """By name, one for each seed; None for what is not finite."""
    every: dict[str, list[float | None]] = {}
    for result in found:
        for key, value in result.figures.items():
            every.setdefault(key, []).append(short(value) if math.isfinite(value) else None)
    return every


def compared(seeds: int) -> list[Group]:
    """The groups of presets that are the same, kin beside kin."""
    equal, found, begin = equal_by_default(), {}, time.perf_counter()
    for group in equal:
        found[group[0]] = runs(group[0], seeds)
        print(f"{len(found):3} of {len(equal)} {time.perf_counter() - begin:5.0f} s  {', '.join(group)}", flush=True)
    digests = {name: tuple(result.digest for result in results) for name, results in found.items()}
    rows: list[Group] = []
    for presets in alike(digests, equal):
        presets.sort(key=lambda names: min(map(kinship, names)))
        columns = [about(names[0]) for names in presets]
        told = {key: "; ".join(dict.fromkeys(column[key] for column in columns)) for key in ABOUT}
        rows.append(dict(presets=presets, **told, **figures(found[presets[0][0]])))
    return sorted(rows, key=lambda row: min(map(kinship, row["presets"][0])))


def main() -> int:
    parser = make_parser("bench.studies.family", __doc__, output=True)
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: %(default)s)")
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error(f"--seeds {given.seeds}: must be at least 1")
    if packages := missing():
        parser.error(f"{', '.join(packages)}: not installed; pip install -c constraints.txt -e '.[study]'")
    check_output(parser, given.output)
    from bench.studies.family.plot import plot  # matplotlib may have been missing

    with one_thread():
        known = machine(torch.device("cpu"), f"{parser.prog} --seeds {given.seeds}")
        known.update({package: version(package) for package in ("scikit-learn", "gymnasium")})
        rates = {key: problem.lr for key, problem in PROBLEMS.items()}
        results = {**known, "seeds": given.seeds, "lr": rates, "groups": compared(given.seeds)}
    print("\n".join(["", *TABLES["compared"](results)]))
    with writing(parser):
        write(given.output / "family.json", dumped(results, "groups"))
        plot(results, given.output / "family.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
