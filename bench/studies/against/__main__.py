"""How fast another commit's steps are beside this checkout's, both beside a baseline, all in turn in one run.

    python -m bench.studies.against COMMIT [--only ROW ...] [--quick] [--output bench/results]

Writes against.json. Of a part, with --only or --quick, into runs/bench.
"""

import shlex
import statistics
import sys
from typing import NamedTuple

import torch

from bench.common.arguments import RESULTS, ROOT, check_output, chosen, make_parser, writing
from bench.common.machine import machine
from bench.common.store import Row, dumped, short
from bench.common.text import table
from bench.studies.against.processes import Failed, Unusable, Worker, busy, find_commit, workers
from bench.studies.against.rows import Case, cases
from bench.studies.against.table import HEADER, below, line
from fusedrms.tools.files import place, write
from fusedrms.tools.printing import plain_where_needed


class Patience(NamedTuple):
    rounds: int
    seconds: float  # of a turn
    busy_seconds: float


PATIENCE = {"": Patience(7, 0.15, 0.4), "everywhere": Patience(3, 0.04, 0.15), "quick": Patience(3, 0.02, 0.05)}


def timed(case: Case, both: tuple[Worker, Worker], patience: Patience) -> Row:
    """Both commits' figures of a case."""
    for worker in both:
        worker.ask("make", case.key)
    turns = [(worker, n) for n in range(len(case.sides)) for worker in both]
    found: dict[tuple[Worker, int], list[float]] = {turn: [] for turn in turns}
    for _ in range(patience.rounds):
        turns.reverse()
        for crowded in (False, True):
            now = [turn for turn in turns if case.sides[turn[1]].busy == crowded]
            with busy(crowded and bool(now)):
                for worker, n in now:
                    seconds = patience.busy_seconds if crowded else patience.seconds
                    found[worker, n].append(worker.ask("turn", n, seconds))
    row: Row = dict(row=case.row, case=case.name, against=case.against, at_least=case.at_least, at_most=case.at_most)
    for name, worker in zip(("old", "new"), both, strict=True):
        ours = found[worker, 0]
        row[f"{name}_us"] = short(1e6 * statistics.median(ours) / case.per)
        in_turn = zip(ours, found.get((worker, 1), ()), strict=False)
        ratios = [other / own for own, other in in_turn]
        row[f"{name}_ratio"] = short(statistics.median(ratios)) if ratios else None
    return row


def parse(argv: list[str] | None):
    parser = make_parser("bench.studies.against", __doc__)
    parser.add_argument("commit", help="as git knows it")
    parser.add_argument("--only", nargs="+", metavar="ROW")
    parser.add_argument("--quick", action="store_true", help="shorter turns, and little of the last row")
    parser.add_argument("--output", type=place, help="directory (default: bench/results; of a part, runs/bench)")
    given = parser.parse_args(argv)
    known = cases(given.quick)
    given.rows = chosen(parser, given.only, dict.fromkeys(case.row for case in known.values()))
    part = given.quick or given.only
    given.output = given.output or (ROOT / "runs/bench" if part else RESULTS)
    check_output(parser, given.output)
    return parser, given, [case for case in known.values() if case.row in given.rows]


def main(argv: list[str] | None = None) -> int:
    parser, given, asked = parse(argv)
    plain_where_needed(sys.stdout)
    rows, skipped = [], {}
    try:
        commit = find_commit(given.commit)
        with workers(commit, given.quick) as both:
            print("\n".join(table(HEADER, ())), flush=True)
            for case in asked:
                patience = PATIENCE["quick" if given.quick else case.row if case.row in PATIENCE else ""]
                try:
                    rows.append(timed(case, both, patience))
                except Failed as error:
                    skipped[case.key] = str(error)
                    print(f"{case.key}: {error}", file=sys.stderr)
                else:
                    print("| " + " | ".join(line(rows[-1])) + " |", flush=True)
    except Unusable as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    command = ["python", "-m", "bench.studies.against", given.commit]
    command += ["--only", *given.only] if given.only else []
    command += ["--quick"] if given.quick else []
    results = {**machine(torch.device("cpu"), shlex.join(command)), "against": commit, "skipped": skipped, "rows": rows}
    for row in below(rows):
        print(f"slower than {row['against']}: {row['case']}: {row['new_ratio']:.2f}, was {row['old_ratio']:.2f}")
    path = given.output / "against.json"
    with writing(parser):
        write(path, dumped(results, "rows"))
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
