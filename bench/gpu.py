"""All that a GPU must show, as parts that run one after the other, whatever happens to those before: `make gpu`.

    python -m bench.gpu [--device cuda] [--output DIRECTORY] [--quick] [--only PART,...]

Each part has a time limit, at which it is interrupted, and killed where that does not help. What is known is in gpu.json, in a folder
of the device's name, at any time. Exit status: 0 all passed; 1 a part failed or took too long; 130 interrupted.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import torch
from rich.table import Table
from rich.text import Text

from bench.arguments import chosen, device_of
from bench.machine import machine
from bench.store import Row
from fusedrms.engine.configs import ENVIRONMENT, device_name
from fusedrms.kernels import devices
from fusedrms.tools.files import leftovers, place, write
from fusedrms.tools.printing import console
from fusedrms.tools.variants import MODES, words

ROOT = pathlib.Path(__file__).parent.parent
WITH_ROWS = ("first", "headline")
GRACE = 15.0  # seconds that an interrupted part has to end by itself
POLL = 0.5  # seconds between looks at what it has found
KEPT = 3000  # characters of a part's output
STYLES = {"passed": "green", "failed": "red", "timed out": "red", "interrupted": "yellow"}


class Part(NamedTuple):
    """A command of its own."""

    name: str
    limit: float  # seconds
    arguments: list[str]  # of the interpreter
    telling: str  # found in its most important line, a regular expression
    environment: dict[str, str] = {}  # noqa: RUF012


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parts(device: torch.device, output: pathlib.Path, scratch: pathlib.Path, quick: bool) -> list[Part]:
    """In the order in which they run, nine minutes together; scratch: where rows are left as they come."""
    less = ["--quick"] if quick else []
    targets = ",".join(dict.fromkeys([devices.target(device) or "cpu", "cpu"]))  # what `first` has beside it is the CPU driver
    kernels = ["--rules", "rmsprop,smorms3", "--dtypes", "float32,bfloat16+split+8bit"] if quick else ["--dtypes", ",".join(MODES)]
    spread = ["-n", str(min(8, cores()))] if importlib.util.find_spec("xdist") else []
    few = ["--rules", "rmsprop", "--dtypes", "float32", "--sizes", "small", "--budget", "10"]
    searched = few if quick else ["--budget", "55"]
    timed = [*less, "-k", "A2C or copy"] if quick else ["-k", "not compiled"]  # which headline has beside ours, and takes long
    on, to = ["--device", device.type], ["--output", str(output)]
    first, headline = ([*on, *less, "--rows", str(scratch / name)] for name in WITH_ROWS)
    return [
        Part("compile", 60, ["-m", "fusedrms", "compile", "--target", targets, *kernels, "--jobs", str(cores())], "kernels in|compile: "),
        Part("first", 25, ["-m", "bench.first", *first], "rules and dtypes"),
        Part("headline", 90, ["-m", "bench.headline", *headline], "figures, "),
        Part(
            "tests",
            100,
            ["-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:benchmark", "-q", *spread],
            r"\d (passed|failed|error|skipped)",
            {"TEST_GPU": device.type} if devices.is_gpu(device) else {},
        ),
        Part("tune", 75, ["-m", "fusedrms", "tune", *on, *searched, *to], "not searched"),
        Part("bench", 170, ["-m", "bench", *on, *timed, *to], r"FAILED|step\.json", {ENVIRONMENT: str(output)}),
    ]


class Results:
    """gpu.json, rewritten whole whenever there is more to say."""

    def __init__(self, head: Row, path: pathlib.Path, scratch: pathlib.Path):
        self.parts: list[Row] = []
        self.problem: str | None = None  # why the file lacks what was to be kept last
        self._head, self._path, self._scratch = head, path, scratch
        self._written = ""

    def _rows(self, name: str) -> list[Row]:
        path = self._scratch / name
        lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last one has not ended yet
        return [json.loads(line) for line in lines]

    def save(self, running: str | None = None) -> None:
        """running: the part that is under way."""
        rows = {name: self._rows(name) for name in WITH_ROWS}
        content = json.dumps({**self._head, "running": running, "parts": self.parts, **rows}, indent=1) + "\n"
        if content != self._written:
            write(self._path, content)
            self._written = content

    def keep(self, running: str | None = None) -> None:
        """save(); where that cannot be, the parts go on, whose results are printed as well."""
        try:
            self.save(running)
            self.problem = None
        except OSError as error:
            self.problem = f"{error.filename} lacks results, since it could not be written ({error.strerror}): free space there"


class Tee(threading.Thread):
    """Passes on what a part prints, and keeps the end of it."""

    def __init__(self, source: IO[bytes]):
        super().__init__(daemon=True)  # something that has left the part's group may hold the pipe for ever
        self._source, self._end = source, b""
        self.start()

    def run(self) -> None:
        with self._source as source:
            while block := os.read(source.fileno(), 1 << 16):
                self._end = (self._end + block)[-4 * KEPT :]  # a character has up to four bytes
                with contextlib.suppress(OSError):  # nobody reads any more
                    sys.stdout.buffer.write(block)
                    sys.stdout.buffer.flush()

    def tail(self) -> str:
        """The last characters, once the part has ended."""
        self.join(2)
        return self._end.decode(errors="replace")[-KEPT:]


def signal_group(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group that has ended
        os.killpg(process.pid, number)


class Interrupts:
    """How often the run was asked to stop, by Ctrl-C or SIGTERM: an exception could come where a part has just begun."""

    def __init__(self):
        self.count = 0

    def _note(self, number: int, frame: object) -> None:
        self.count += 1

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """A shell may have had SIGINT ignored in its background; parts are interrupted nonetheless, since there is a handler here."""
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def ended(process: subprocess.Popen, seconds: float, interrupts: Interrupts, allowed: int, look: Callable[[], None]) -> bool:
    """Whether it ends within so many seconds, and before there are more interrupts than allowed; look: what is done meanwhile."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and interrupts.count <= allowed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(POLL, left))
            return True
        look()
    return process.poll() is not None


def outcome(process: subprocess.Popen, limit: float, interrupts: Interrupts, look: Callable[[], None]) -> str:
    """How it has come to its end, after which nothing of it runs any more."""
    try:
        if ended(process, limit, interrupts, 0, look):
            return "failed" if process.returncode else "passed"
        found = "interrupted" if interrupts.count else "timed out"
        signal_group(process, signal.SIGINT)
        ended(process, GRACE, interrupts, interrupts.count, look)
        return found
    finally:
        signal_group(process, signal.SIGKILL)  # also what it has left behind
        process.wait()


def run(part: Part, interpreter: list[str], limit: float, interrupts: Interrupts, look: Callable[[], None]) -> Row:
    """Run a part; its entry in gpu.json."""
    begin = time.monotonic()
    command = [*interpreter, *part.arguments]
    entry = dict(name=part.name, seconds=0.0, limit=limit, outcome="failed", code=None, tail="", command=shlex.join(command))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **part.environment}  # what is printed would be lost with a part that is killed
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return entry | dict(tail=f"{interpreter[0]}: {error.strerror}")
    assert process.stdout is not None
    tee = Tee(process.stdout)
    found = outcome(process, limit, interrupts, look)
    return entry | dict(seconds=round(time.monotonic() - begin, 1), outcome=found, code=process.returncode, tail=tee.tail())


def left_over(output: pathlib.Path, name: str) -> None:
    """Remove locks, and what a part that was killed has half written."""
    for path in [output / f"{name}.json.lock", *leftovers(output / f"{name}.json"), *(output / name).glob(".*")]:
        path.unlink(missing_ok=True)


def important(entry: Row, telling: str) -> str:
    lines = [line.strip() for line in re.split(r"[\r\n]+", entry["tail"]) if line.strip()]
    return next((line for line in reversed(lines) if re.search(telling, line)), lines[-1] if lines else "")


def table(entries: list[Row], asked: list[Part]) -> Table:
    shown = Table(title="Parts")
    for header in ("part", "s", "limit", "outcome", ""):
        shown.add_column(header, justify="right" if header in ("s", "limit") else "left", overflow="fold")
    for entry, part in zip(entries, asked, strict=False):
        cells = part.name, f"{entry['seconds']:.0f}", f"{entry['limit']:.0f}", entry["outcome"]
        shown.add_row(*cells, Text(important(entry, part.telling)), style=STYLES[entry["outcome"]])
    return shown


def run_all(asked: list[Part], interpreter: list[str], patience: float, results: Results, output: pathlib.Path, name: str) -> int:
    """The exit status, once all have run, or one was interrupted."""
    interrupts = Interrupts()
    with interrupts.noted():
        for part in asked:
            limit, look = part.limit * patience, functools.partial(results.keep, part.name)
            print(f"\n== {part.name}, at most {limit:.0f} s ==", flush=True)
            look()
            results.parts.append(run(part, interpreter, limit, interrupts, look))
            left_over(output, name)
            results.keep()
            if interrupts.count:
                return 130
    return int(any(entry["outcome"] != "passed" for entry in results.parts))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--device", choices=["cpu", *devices.KINDS], default="cuda")
    parser.add_argument("--output", type=place, default=ROOT / "bench/results", help="directory (default: bench/results)")
    parser.add_argument("--quick", action="store_true", help="a small part of each, to try them")
    parser.add_argument("--only", type=words, metavar="PART,...", help="these only, in their order")
    parser.add_argument(
        "--python", default=shlex.quote(sys.executable), metavar="COMMAND", help="what runs the parts (default: this Python)"
    )
    parser.add_argument("--patience", type=float, default=1.0, metavar="FACTOR", help="of all time limits (default: %(default)s)")
    given = parser.parse_args(argv)
    if not given.patience > 0:
        parser.error(f"--patience {given.patience:g}: it takes a number above 0")
    try:
        interpreter = shlex.split(given.python)
    except ValueError as error:
        parser.error(f"--python {given.python}: {error}")
    if not interpreter:
        parser.error("--python: it takes a command")
    device = device_of(parser, given.device)
    name, output = device_name(device), given.output.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        every = parts(device, output, pathlib.Path(scratch), given.quick)
        only = chosen(parser, given.only, [part.name for part in every])
        asked = [part for part in every if part.name in only]
        head = machine(device, shlex.join(["python", "-m", "bench.gpu", *(sys.argv[1:] if argv is None else argv)]))
        results = Results(head, output / name / "gpu.json", pathlib.Path(scratch))
        try:
            results.save()
        except OSError as error:
            parser.error(f"--output {given.output}: {error.strerror}; name a directory that can be written")
        status = run_all(asked, interpreter, given.patience, results, output, name)
    out = console()
    out.print(table(results.parts, asked))
    if results.problem:
        print(f"{parser.prog}: {results.problem}", file=sys.stderr)
        return status or 1
    out.print(f"written to {output / name / 'gpu.json'}", soft_wrap=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
