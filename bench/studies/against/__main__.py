"""How fast another commit's steps are beside this checkout's, both beside a baseline, all in turn in one run.

    python -m bench.studies.against COMMIT [--only ROW ...] [--quick] [--output bench/results]

Takes seven to eight minutes on two cores. Writes against.json; of a part, which --only and --quick ask for, into runs/bench.
"""

import argparse
import contextlib
import shlex
import statistics
import sys
from typing import NamedTuple

import torch

from bench.common.arguments import RESULTS, ROOT, check_output, chosen, make_parser, writing
from bench.common.machine import machine
from bench.common.store import Row, dumped, short
from bench.common.text import table
from bench.studies.against.processes import Failed, Unusable, Worker, changed, find_commit, workers
from bench.studies.against.rows import Case, cases
from bench.studies.against.table import GRID, HEADER, line, meets, slowest
from fusedrms.tools.files import place, write
from fusedrms.tools.noise import busy
from fusedrms.tools.printing import plain_where_needed


class Patience(NamedTuple):
    makes: int  # how often a case is made anew: where its tensors happen to lie in memory makes a fifth of a small step
    rounds: int  # each time
    seconds: float  # of a turn
    busy_seconds: float


QUICK, USUAL = Patience(1, 3, 0.02, 0.05), Patience(3, 5, 0.07, 0.25)
FEW = Patience(1, 3, 0.04, 0.15)  # of each of the many cells of the grid
AGAIN = Patience(3, 3, 0.07, 0.25)  # of a cell that misses its aim, as of so many some do by chance


def ratio_in_turn(over: list[float], under: list[float]) -> float:
    """The median of what each round says: the machine may be slower in the next."""
    return short(statistics.median(one / other for one, other in zip(over, under, strict=True)))


def timed(case: Case, both: tuple[Worker, Worker], patience: Patience) -> Row:
    """Both commits' figures of a case."""
    turns = [(worker, n) for n in range(len(case.sides)) for worker in both]
    found: dict[tuple[Worker, int], list[float]] = {turn: [] for turn in turns}
    for n in range(patience.makes * patience.rounds):
        for worker in both if n % patience.rounds == 0 else ():
            worker.ask("make", case.key)
        turns.reverse()
        for crowded in (False, True):
            now = [turn for turn in turns if case.sides[turn[1]].busy == crowded]
            with busy() if crowded and now else contextlib.nullcontext():
                for worker, side in now:
                    seconds = patience.busy_seconds if crowded else patience.seconds
                    found[worker, side].append(worker.ask("turn", side, seconds))
    row: Row = dict(row=case.row, case=case.name, against=case.against, at_least=case.at_least, at_most=case.at_most)
    for name, worker in zip(("old", "new"), both, strict=True):
        ours, *others = (found[worker, n] for n in range(len(case.sides)))
        row[f"{name}_us"] = short(1e6 * statistics.median(ours) / case.per)
        row[f"{name}_ratio"] = ratio_in_turn(others[0], ours) if others else None
    row["faster"] = ratio_in_turn(found[both[0], 0], found[both[1], 0])
    return row


def all_timed(asked: list[Case], both: tuple[Worker, Worker], quick: bool) -> tuple[list[Row], dict[str, str]]:
    """Their figures, which are printed as they come, but of the grid only the slowest and what misses its aim; and why some are missing."""
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    print("\n".join(table(HEADER, ())), flush=True)
    for case in asked:
        grid = case.row == GRID
        try:
            row = timed(case, both, QUICK if quick else FEW if grid else USUAL)
            if grid and not quick and not meets(row):
                row = timed(case, both, AGAIN)
        except Failed as error:
            skipped[case.key] = str(error)
            print(f"{case.key}: {error}", file=sys.stderr)
            continue
        rows.append(row)
        if not grid or not meets(row):
            print(line(row), flush=True)
    for row in filter(meets, slowest(rows)):
        print(line(row))
    return rows, skipped


def parse(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace, list[Case]]:
    parser = make_parser("bench.studies.against", __doc__)
    known = cases(quick=False)
    names = list(dict.fromkeys(case.row for case in known.values()))
    parser.add_argument("commit", help="as git knows it")
    parser.add_argument("--only", nargs="+", metavar="ROW", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="shorter turns, and little of the last row: a minute")
    parser.add_argument("--output", type=place, help="directory (default: bench/results; of a part, runs/bench)")
    given = parser.parse_args(argv)
    given.rows = chosen(parser, given.only, names)
    given.output = given.output or (ROOT / "runs/bench" if given.quick or given.only else RESULTS)
    check_output(parser, given.output)
    return parser, given, [case for case in cases(given.quick).values() if case.row in given.rows]


def main(argv: list[str] | None = None) -> int:
    parser, given, asked = parse(argv)
    plain_where_needed(sys.stdout)
    command = ["python", "-m", "bench.studies.against", given.commit, *(["--quick"] if given.quick else [])]
    command += ["--only", *given.only] if given.only else []
    try:
        commit = find_commit(given.commit)
        about = {**machine(torch.device("cpu"), shlex.join(command)), "changed": changed(), "against": commit}
        with workers(commit, given.rows, given.quick) as both:
            rows, skipped = all_timed(asked, both, given.quick)
    except Unusable as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    path = given.output / "against.json"
    with writing(parser):
        write(path, dumped({**about, "skipped": skipped, "rows": rows}, "rows"))
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
