"""Times step() beside torch's and writes a report: python -m bench [--device cuda] [--output DIRECTORY] [--quick] [pytest's arguments]."""

import argparse
import contextlib
import json
import shlex
import sys
import tempfile

import pytest

from bench.common.arguments import RESULTS, ROOT, add_device, check_output, device_of, writing
from bench.common.store import dumped
from bench.plugin import CtrlC, Kept
from bench.report.report import write_report
from fusedrms.engine.tables.configs import device_name
from fusedrms.tools.files import place, write
from fusedrms.tools.printing import plain_where_needed

WRITTEN = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)  # if there are timings
OPTIONS = ("-v", "--no-header", "-rfs", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "-W", "ignore")
TIMED = (
    "--benchmark-disable-gc",
    "--benchmark-columns=min,median,iqr,rounds",
    "--benchmark-sort=fullname",
)


def parse(argv: list[str] | None, prog: str) -> tuple[argparse.ArgumentParser, argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog=prog, description="Time step() beside torch's; write step.json, report.md and plots.", allow_abbrev=False
    )
    add_device(parser, "cpu")
    parser.add_argument(
        "--output", type=place, help="folder in which to make one for the device (default: bench/results; for a part, runs/bench)"
    )
    parser.add_argument("--quick", action="store_true", help="time only a part, in about a minute")
    parser.add_argument("--json", action="store_true", help="print the names of the written files as JSON, and the table to stderr")
    parser.epilog = f"example: {prog} --quick; other arguments go to pytest: -k 'GPT and plain', --benchmark-compare=STEP.json"
    return parser, *parser.parse_known_args(argv)


def main(argv: list[str] | None = None, prog: str = "python -m bench") -> int:
    """Exit code: pytest's; 1 if a timing failed, 2 if it was interrupted, after which what was timed so far is written."""
    parser, given, rest = parse(argv, prog)
    device = device_of(parser, given.device)
    part = given.quick or bool(rest)  # must not take the place of the whole
    folder = (given.output or (ROOT / "runs/bench" if part else RESULTS)) / device_name(device)
    check_output(parser, folder)
    asked = [f"--device={given.device}", *(["--quick"] if given.quick else [])]
    kept = Kept()
    printed = contextlib.redirect_stdout(sys.stderr) if given.json else contextlib.nullcontext()
    with printed, tempfile.TemporaryDirectory() as scratch:
        plain_where_needed(sys.stdout)
        code = pytest.main(
            [str(ROOT / "bench"), *OPTIONS, *TIMED, f"--rootdir={ROOT}", *asked, f"--benchmark-json={scratch}/step.json", *rest],
            plugins=[kept, CtrlC()],
        )
    if code not in WRITTEN or not kept.results.get("benchmarks"):
        print("nothing was written", file=sys.stderr)
        return int(code) or 1
    if code == pytest.ExitCode.INTERRUPTED:
        kept.skipped["all that was left"] = "interrupted"
    kept.results["machine_info"]["command"] = shlex.join(["python", "-m", "bench", *asked, *rest])
    path = folder / "step.json"
    with writing(parser):
        write(path, dumped({**kept.results, "skipped": kept.skipped, "failed": kept.failed}))
        written = [str(name) for name in (path, *write_report(path))]
    print(json.dumps(written) if given.json else "\n".join(f"wrote {name}" for name in written))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
