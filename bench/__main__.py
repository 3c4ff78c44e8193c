"""Times step() beside torch's and writes a report: python -m bench [--device cuda] [--output DIRECTORY] [--quick] [pytest's arguments]."""

import argparse
import json
import os
import pathlib
import shlex
import signal
import sys
import tempfile

import pytest

from bench.arguments import check_output, device_of, writing
from bench.live import LiveTable
from bench.report import write_report
from bench.store import dumped
from fusedrms.engine.configs import device_name
from fusedrms.kernels import devices
from fusedrms.tools.files import place, write
from fusedrms.tools.printing import console

ROOT = pathlib.Path(__file__).parent.parent
WRITTEN = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)  # if there are timings
OPTIONS = ("-qq", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "-W", "ignore", "--benchmark-disable-gc")


class CtrlC:
    """Ends the run before the next timing, and the one under way if it can be; also where a compiler makes another error of it."""

    def __init__(self):
        self._timing = False

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        def stop(number: int, frame: object) -> None:
            session.shouldstop = "interrupted"
            if self._timing:  # elsewhere pytest would not end as it does after its own
                raise KeyboardInterrupt

        self._before = signal.signal(signal.SIGINT, stop)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item):
        if item.session.shouldstop:
            raise KeyboardInterrupt
        self._timing = True
        try:
            return (yield)
        finally:
            self._timing = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_benchmark_generate_json(self, benchmarks: list) -> None:
        benchmarks[:] = filter(None, benchmarks)  # of what was interrupted before its first round pytest-benchmark knows no median

    def pytest_unconfigure(self) -> None:
        signal.signal(signal.SIGINT, self._before)


def parse(argv: list[str] | None, prog: str) -> tuple[argparse.ArgumentParser, argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog=prog, description="Time step() beside torch's; write step.json, report.md and plots.", allow_abbrev=False
    )
    parser.add_argument("--device", choices=["cpu", *devices.KINDS], default="cpu")
    parser.add_argument(
        "--output", type=place, help="directory that gets one of the device's name (default: bench/results; of a part, runs/bench)"
    )
    parser.add_argument("--quick", action="store_true", help="a part that takes about a minute, to try it")
    parser.add_argument("--json", action="store_true", help="print the names of the files as JSON, and the table to stderr")
    parser.epilog = f"example: {prog} --quick; other arguments are pytest's: -k 'GPT and plain', --benchmark-compare=step.json of a device."
    return parser, *parser.parse_known_args(argv)


def main(argv: list[str] | None = None, prog: str = "python -m bench") -> int:
    """Exit code: pytest's; 1 if a timing failed, 2 if it was interrupted, after which what was timed so far is written."""
    parser, given, rest = parse(argv, prog)
    device = device_of(parser, given.device)
    part = given.quick or bool(rest)  # must not take the place of the whole
    folder = (given.output or ROOT / ("runs/bench" if part else "bench/results")) / device_name(device)
    check_output(parser, folder)
    asked = [f"--device={given.device}", *(["--quick"] if given.quick else [])]
    kept = os.dup(2 if given.json else 1)  # pytest captures stdout
    with os.fdopen(kept, "w", encoding=sys.stdout.encoding) as terminal, tempfile.TemporaryDirectory() as scratch:
        live = LiveTable(console(terminal, width=125))
        quiet = [] if any(argument.startswith("--benchmark") for argument in rest) else ["--benchmark-quiet"]
        code = pytest.main(
            [str(ROOT / "bench"), *OPTIONS, f"--rootdir={ROOT}", *asked, f"--benchmark-json={scratch}/step.json", *quiet, *rest],
            plugins=[live, CtrlC()],
        )
    if code not in WRITTEN or not live.results.get("benchmarks"):
        print("nothing was written", file=sys.stderr)
        return int(code) or 1
    if code == pytest.ExitCode.INTERRUPTED:
        live.skipped["all that was left"] = "interrupted"
    live.results["machine_info"]["command"] = shlex.join(["python", "-m", "bench", *asked, *rest])
    path = folder / "step.json"
    with writing(parser):
        write(path, dumped({**live.results, "skipped": live.skipped, "failed": live.failed}))
        written = [str(name) for name in (path, *write_report(path))]
    print(json.dumps(written) if given.json else "\n".join(f"wrote {name}" for name in written))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
