"""All that a GPU must show, as parts that run one after the other, whatever happens to those before: `make gpu`.

    python -m bench.gpu [--device cuda] [--output DIRECTORY] [--quick] [--only PART,...]

Each part has a time limit, at which it is interrupted, and killed where that does not help. What is known is in gpu.json, in a folder
of the device's name, at any time. Exit status: 0 all passed; 1 a part failed or took too long; 130 interrupted.
"""

import functools
import importlib.util
import json
import os
import pathlib
import re
import shlex
import sys
import tempfile

import torch
from rich.table import Table
from rich.text import Text

from bench.common.arguments import RESULTS, add_device, chosen, device_of, make_parser
from bench.common.machine import machine
from bench.common.store import Row
from bench.gpu.process import Interrupts, Part, run
from fusedrms.engine.tables.configs import ENVIRONMENT, device_name
from fusedrms.kernels import devices
from fusedrms.tools.files import leftovers, place, write
from fusedrms.tools.printing import console
from fusedrms.tools.variants import MODES, words

WITH_ROWS = ("first", "headline")
STYLES = {"passed": "green", "failed": "red", "timed out": "red", "interrupted": "yellow"}


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
        Part("first", 25, ["-m", "bench.gpu.first", *first], "rules and dtypes"),
        Part("headline", 90, ["-m", "bench.gpu.headline", *headline], "figures, "),
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
    parser = make_parser("bench.gpu", __doc__)
    add_device(parser, "cuda")
    parser.add_argument("--output", type=place, default=RESULTS, help="directory (default: bench/results)")
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
