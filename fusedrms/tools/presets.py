"""fusedrms presets: what each preset is, and how two differ."""

import argparse
import io
import json
import math
import pathlib
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..presets.family import HEADERS, LEGEND, equations, find, named, needs_lr, options_of
from ..presets.preset import Preset
from . import files, quadratic
from .errors import UserError

COLUMNS = "name", "system", "version", "averages", "eps", "lr", "start", "clipping", "decay", "numbers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="WORD", help="show those alone whose name, system or documentation has these words")
    parser.add_argument("--diff", nargs=2, metavar="PRESET", help="how two differ, by their names or beginnings, and a plot of both")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of both in the plot (default: 0.01)")
    parser.add_argument("--steps", type=int, default=500, help="steps in the plot (default: 500)")
    parser.add_argument("--output", type=files.place, metavar="FILE", help="the plot (default: PRESET-PRESET.png here)")


def rows_of(words: str) -> list[dict[str, str]]:
    """The rows of the table, by its columns."""
    return [{column: getattr(member, column) for column in COLUMNS} for member in find(words)]


def _named(word: str) -> Preset:
    try:
        return named(word)
    except ValueError as error:
        raise UserError(f"--diff {error}") from None


def differing(a: Preset, b: Preset) -> dict[str, tuple[Any, Any]]:
    """The options that two presets have otherwise, and what they are; None where there is none, or it must be given."""
    first, second = ({**options_of(preset), **dict.fromkeys(["lr"] if needs_lr(preset) else [])} for preset in (a, b))
    found = {name: (first.get(name), second.get(name)) for name in first | second}
    return {name: values for name, values in found.items() if values[0] != values[1]}


def _check(args: argparse.Namespace) -> None:
    if args.words and args.diff:
        raise UserError(f"--diff takes two presets, and there is {' '.join(args.words)!r} besides: leave it out")
    if not (math.isfinite(args.lr) and args.lr > 0):
        raise UserError(f"--lr {args.lr}: it must be a finite number above 0")
    if args.steps < 1:
        raise UserError(f"--steps {args.steps}: it must be at least 1")


def plot(curves: dict[str, list[float]], lr: float) -> bytes:
    """A PNG; UserError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("matplotlib is missing, which plots: pip install matplotlib") from None
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for (name, curve), style in zip(curves.items(), ("-", "--"), strict=True):
        axes.plot(curve, style, label=name)
    axes.set(xlabel="step", ylabel="loss", yscale="log", title=f"A noisy quadratic, lr {lr:g}, other numbers by default")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file := io.BytesIO(), format="png", dpi=120)
    return file.getvalue()


def _diff(args: argparse.Namespace, console: Console) -> int:
    presets = [_named(word) for word in args.diff]
    names = [preset.make.__name__ for preset in presets]
    if names[0] == names[1]:
        raise UserError(f"--diff {' '.join(args.diff)}: both are {names[0]}; name two presets")
    rows = differing(*presets)
    curves = {name: quadratic.losses(preset, args.lr, args.steps) for name, preset in zip(names, presets, strict=True)}
    path = args.output or pathlib.Path(f"{names[0]}-{names[1]}.png")
    try:
        files.write(path, plot(curves, args.lr))
    except OSError as error:
        raise UserError(f"--output {path}: {error.strerror}: name another place") from None
    if args.json:
        print(json.dumps(dict(presets=names, differs=rows, lr=args.lr, losses=curves, plot=str(path)), indent=1, default=str))
        return 0
    for name, preset in zip(names, presets, strict=True):
        console.print(f"{name}: {equations(options_of(preset))}", soft_wrap=True, highlight=False)
    table = Table("option", *names)
    for option, values in rows.items():
        table.add_row(option, *("–" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in values))
    console.print(table if rows else "All options are the same by default.")
    ends = ", ".join(f"{name} {curve[-1]:.3g}" for name, curve in curves.items())
    console.print(f"loss after {args.steps} steps on a noisy quadratic, lr {args.lr:g}: {ends}", soft_wrap=True, highlight=False)
    console.print(str(path), soft_wrap=True, highlight=False)
    return 0


def run(args: argparse.Namespace, console: Console) -> int:
    _check(args)
    if args.diff:
        return _diff(args, console)
    rows = rows_of(" ".join(args.words))
    if not rows:
        raise UserError(f"no preset has {' '.join(args.words)!r}: fusedrms presets shows all")
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    table = Table(*HEADERS, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].no_wrap = True
    table.columns[1].min_width = table.columns[-1].min_width = 24
    for name, system, version, *rest in map(dict.values, rows):
        table.add_row(name, f"{system}, {version}", *rest)
    console.print(table)
    console.print(LEGEND, soft_wrap=True, highlight=False)
    return 0
