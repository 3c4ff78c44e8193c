"""Which versions the tests were run with, and what came of it: an entry for each row.

They are in fusedrms/tools/versions.json, where `fusedrms doctor` finds them too; bench/results/versions.json is a link to it.

python -m bench.studies.versions ROW FILE...    adds up pytest's JUnit XML, with the versions of the interpreter that runs this
"""

import pathlib
import platform
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from xml.etree import ElementTree

from bench.common import arguments
from bench.common.machine import commit
from bench.common.store import Row, dumped, load
from bench.common.text import table
from fusedrms.tools.files import write
from fusedrms.tools.tested import order

RESULTS = arguments.ROOT / "fusedrms/tools/versions.json"
SHOWN = ("torch", "triton", "numba", "numpy")
PACKAGES = (*SHOWN, "platformdirs", "filelock", "rich")


def counts(paths: list[str]) -> Row:
    """Of all files together; a file of tests that cannot be imported counts as one that failed."""
    cases = [case for path in paths for case in ElementTree.parse(path).iter("testcase")]
    wrong = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    failed = sorted({f"{case.get('classname')}::{case.get('name')}" for case in wrong})
    return dict(passed=len(cases) - len(wrong) - skipped, failed=len(wrong), skipped=skipped, failures=failed)


def entry(row: str, paths: list[str]) -> Row:
    return dict(
        row=row,
        python=platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        **counts(paths),
        commit=commit(),
        date=datetime.now(timezone.utc).date().isoformat(),
        command=f'make test-versions ARGS="--session {row}"',
    )


def _order(found: Row) -> tuple[tuple[int, ...], ...]:
    """By torch, then Python."""
    return order(found["torch"]), order(found["python"])


def record(found: Row, path: pathlib.Path = RESULTS) -> None:
    """In place of what the row had before."""
    old = load(path)["rows"] if path.exists() else []
    entries = [*(other for other in old if other["row"] != found["row"]), found]
    write(path, dumped({"rows": sorted(entries, key=_order)}, key="rows"))


def _versions(results: dict) -> list[str]:
    columns = ("python", *SHOWN, "passed", "failed", "skipped")
    lines = [[str(found[column]).partition("+")[0] for column in columns] for found in results["rows"]]
    return table(("Python", "torch", "Triton", "Numba", "NumPy", "tests passed", "failed", "skipped"), lines)


TABLES: dict[str, Callable[[dict], list[str]]] = {"versions": _versions}


def main(argv: list[str] | None = None) -> int:
    parser = arguments.make_parser("bench.studies.versions", __doc__)
    parser.add_argument("row", help="name of the row, as make test-versions ARGS=--list has it")
    parser.add_argument("outcomes", nargs="+", help="files that pytest --junitxml has written")
    given = parser.parse_args(argv)
    found = entry(given.row, given.outcomes)
    if not found["passed"] + found["failed"] + found["skipped"]:
        parser.error(f"{', '.join(given.outcomes)}: no test was run; see what pytest said")
    with arguments.writing(parser):
        record(found)
    print(f"{given.row}: {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped")
    return int(found["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
