"""fusedrms tune: measures which configuration is best on this device, on scratch tensors, and writes it down."""

import argparse
import datetime
import json
import pathlib
import platform
import sys
from typing import Any

import numba
import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..engine.tables import configs
from ..engine.tables.configs import Rows
from ..kernels import devices, lang
from ..version import __version__
from . import files, printing, search
from .errors import UserError
from .noise import share_of_others
from .search import Result
from .variants import FORM, OWN_RULE, RULES, check, check_words, device_of, words

NOISY = 0.1  # of the cores, taken by other programs


def describe(device: torch.device, command: str) -> dict[str, Any]:
    """The head of a file."""
    return {
        **configs.header(configs.device_name(device)),
        "project": __version__,
        "model": devices.model(device),
        "threads": torch.get_num_threads(),
        "versions": dict(
            python=platform.python_version(),
            torch=torch.__version__,
            triton=lang.triton and lang.triton.__version__,
            numba=numba.__version__,
        ),
        "driver": devices.stack(device),
        "date": datetime.date.today().isoformat(),
        "command": command,
    }


def save(path: pathlib.Path, head: dict[str, Any], rows: Rows) -> None:
    """Add rows to a file, whoever else writes it or is killed; those of other kernels go.

    Raises:
        OSError: it cannot be written, and is as before.
    """
    with FileLock(f"{path}.lock"):
        for left in files.leftovers(path):
            left.unlink()
        rows = configs.read(path, head["device"]).rows | rows
        files.write(path, json.dumps({**head, "rows": configs.to_json(rows)}, indent=1) + "\n")


def unsaved(path: pathlib.Path, head: dict[str, Any], results: list[Result]) -> str | None:
    """Save results; what is wrong if that cannot be, which is no reason to lose them."""
    try:
        save(path, head, {result.key: result.row for result in results})
    except OSError as error:
        return (
            f"{path} could not be written ({error.strerror}), so the results are printed here only: "
            "free space there, or name another place with --output, and run this again"
        )
    return None


def destination(output: pathlib.Path | None, name: str) -> pathlib.Path:
    """The file to write, in a directory that can be written.

    Raises:
        UserError: it cannot.
    """
    own = configs.own_directory()
    place = output or own or configs.user_directory()
    if place is None:
        raise UserError("platformdirs is not installed, so there is no default place to write to: name one with --output")
    try:
        path = output if output and output.suffix == ".json" and not output.is_dir() else place / f"{name}.json"
        lock = pathlib.Path(f"{path}.lock")
        files.check_folder(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in (path, lock):
            files.check_file(file)
        for file in [lock, *([path] if path.exists() else [])]:
            with open(file, "a"):
                pass
    except OSError as error:
        named = f"{configs.ENVIRONMENT}={own} must be a folder: " if place is own else ""
        wrong = pathlib.Path(error.filename or place)
        raise UserError(
            f"{named}{wrong} cannot be written ({error.strerror}): name another place with --output or {configs.ENVIRONMENT}"
        ) from None
    return path


def table(results: list[Result]) -> Table:
    shown = Table(title="Launches, median µs with the default configuration and with the best one")
    for header in ("rule", "mode", "size", "default", "best", "µs", "best µs", "gain"):
        shown.add_column(header, justify="right" if "µs" in header or header == "gain" else "left")
    for result in results:
        key, row = result.key, result.row
        changed = {name: value for name, value in row.config._asdict().items() if value != getattr(result.default, name)}
        default = " ".join(f"{name} {value}" for name, value in result.default._asdict().items() if name in changed or not changed)
        best = " ".join(f"{name} {value}" for name, value in changed.items()) or "the same"
        figures = f"{row.default_us:.1f}", f"{row.best_us:.1f}", f"{result.gain:.2f}×"
        shown.add_row(key.rule, result.mode, key.size, default, best, *figures)
    return shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=["cpu", *devices.KINDS], help="device to tune for (default: the GPU if torch finds one, else cpu)"
    )
    parser.add_argument(
        "--rules", type=words, default=list(RULES), metavar="RULE,...", help=f"update rules: {', '.join(RULES)} (default: all), {OWN_RULE}"
    )
    parser.add_argument(
        "--dtypes",
        type=words,
        default=["float32", "bfloat16"],
        metavar="MODE,...",
        help=f"precision modes, each {FORM} (default: float32,bfloat16)",
    )
    sizes = list(configs.SIZES)
    parser.add_argument(
        "--sizes", type=words, default=sizes, metavar="SIZE,...", help=f"sizes of the tensors: {', '.join(sizes)} (default: all)"
    )
    parser.add_argument("--budget", type=float, default=150.0, metavar="SECONDS", help="about how long to search (default: %(default)g)")
    parser.add_argument(
        "--output",
        type=files.place,
        metavar="FILE",
        help=f"file ending in .json, or folder, to write to (default: {configs.ENVIRONMENT}, else the user's cache folder)",
    )


def run(args: argparse.Namespace, console: Console) -> int:
    check(args.rules, args.dtypes)
    check_words("--sizes", args.sizes, configs.SIZES)
    if measured := [mode for mode in args.dtypes if "stats" in mode.split("+")]:
        raise UserError(f"--dtypes {','.join(measured)}: leave +stats out, steps that measure use the same configuration as others")
    if not args.budget > 0:
        raise UserError(f"--budget {args.budget:g}: give a number of seconds above 0")
    if lang.interpreted():
        raise UserError("TRITON_INTERPRET is set, and timings of the interpreter mean nothing: unset it")
    device = device_of(args.device)
    path = destination(args.output, configs.device_name(device))
    head = describe(
        device,
        f"fusedrms tune --device {device.type} --rules {','.join(args.rules)} --dtypes {','.join(args.dtypes)} "
        f"--sizes {','.join(args.sizes)} --budget {args.budget:g}",
    )
    n_all = len(args.rules) * len(args.dtypes) * len(args.sizes)
    results: list[Result] = []
    code, problem = 0, None
    others = share_of_others()
    columns = TextColumn("{task.completed}/{task.total}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=printing.for_progress(console, not args.json)) as progress:
        task = progress.add_task("", total=n_all)
        try:
            for what, result in search.search_all(device, args.rules, args.dtypes, args.sizes, args.budget):
                if result:
                    results.append(result)
                    problem = unsaved(path, head, results)
                    progress.advance(task)
                best = max((r.gain for r in results), default=1.0)
                progress.update(task, description=f"{what}; best gain so far {best:.2f}×")
        except KeyboardInterrupt:
            code, problem = 130, unsaved(path, head, results) if results else None  # it may have come while the last was saved
    if (share := others()) > NOISY:
        print(f"fusedrms tune: other programs used {share:.0%} of the cores meanwhile: run this again on a quiet machine", file=sys.stderr)
    if args.json:
        rows = configs.to_json({result.key: result.row for result in results})
        print(json.dumps(dict(path=str(path), rows=rows, problem=problem), indent=1))
    else:
        console.print(table(results))
    if problem:
        print(f"fusedrms tune: {problem}", file=sys.stderr)
        code = code or 1
    if args.json:
        return code
    if len(results) < n_all:
        console.print(
            f"{n_all - len(results)} of {n_all} were not searched: " + ("interrupted" if code else "the time is up, see --budget")
        )
    if results and not problem:
        console.print(f"written to {path}", soft_wrap=True)
    return code
