"""fusedrms presets: what each preset is, and how two differ."""

import argparse
import json
import math
import pathlib
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..presets.family import Member, defaults_of, equations, find, named
from ..presets.preset import PRESETS, Preset
from . import files, plots, quadratic
from .errors import UserError

LEGEND = (
    'The default comes first; "with" names the argument that changes it. α: decay of the averages. μ: momentum. ε: outside the root, '
    "inside, both, or as its least value (floor). from: what the square average starts from, if not 0. norm: of all gradients, or of each. "
    "Where lr is missing by default, it must be given. fusedrms presets --diff PRESET PRESET shows equations."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="show only presets whose name, system or documentation contains all of these words"
    )
    parser.add_argument(
        "--diff", nargs=2, metavar="PRESET", help="show how two presets differ, and plot both; the beginning of a name is enough"
    )
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of both presets in the plot (default: 0.01)")
    parser.add_argument("--steps", type=int, default=500, help="number of steps in the plot (default: 500)")
    parser.add_argument(
        "--output", type=files.place, metavar="FILE", help="PNG file for the plot (default: PRESET-PRESET.png in this folder)"
    )


def _all_of(member: Member) -> dict[str, Any]:
    """For machines: a member, with all options by default in place of the function."""
    words = member._asdict()
    del words["make"]
    return {**words, "options": defaults_of(PRESETS[member.name])}


def _named(word: str) -> Preset:
    try:
        return named(word)
    except ValueError as error:
        raise UserError(f"--diff {error}") from None


def differing(a: Preset, b: Preset) -> dict[str, tuple[Any, Any]]:
    """The options that two presets have otherwise, and what they are; None where there is none, or it must be given."""
    first, second = defaults_of(a), defaults_of(b)
    found = {name: (first.get(name), second.get(name)) for name in first | second}
    if not any(found.get("momentum", ())):
        found.pop("lr_in_momentum", None)  # which has no effect then
    return {name: values for name, values in found.items() if values[0] != values[1]}


def _check(args: argparse.Namespace) -> None:
    if args.words and args.diff:
        raise UserError(f"--diff takes two presets and no other words: leave {' '.join(args.words)!r} out")
    if not (math.isfinite(args.lr) and args.lr > 0):
        raise UserError(f"--lr {args.lr}: it must be a finite number above 0")
    if args.steps < 1:
        raise UserError(f"--steps {args.steps}: it must be at least 1")


def plot(path: pathlib.Path, curves: dict[str, list[float]], lr: float) -> None:
    """Write a PNG."""
    figure, axes = plots.figure(8, 5)
    for (name, curve), style in zip(curves.items(), ("-", "--"), strict=True):
        axes.plot(curve, style, label=name)
    axes.set(xlabel="step", ylabel="loss", yscale="log", title=f"A noisy quadratic, lr {lr:g}, other numbers by default")
    axes.grid(alpha=0.3)
    axes.legend()
    plots.write(path, figure)


def _diff(args: argparse.Namespace, console: Console) -> int:
    presets = [_named(word) for word in args.diff]
    names = [preset.make.__name__ for preset in presets]
    if names[0] == names[1]:
        raise UserError(f"--diff {' '.join(args.diff)}: both are {names[0]}: give two different presets")
    rows = differing(*presets)
    curves = {name: quadratic.losses(preset, args.lr, args.steps) for name, preset in zip(names, presets, strict=True)}
    path = args.output or (pathlib.Path(f"{names[0]}-{names[1]}.png") if plots.possible() else None)
    if path:
        plot(path, curves, args.lr)
    if args.json:
        losses = {name: [loss if math.isfinite(loss) else None for loss in curve] for name, curve in curves.items()}
        print(json.dumps(dict(presets=names, differs=rows, lr=args.lr, losses=losses, plot=path and str(path)), indent=1, default=str))
        return 0
    for name, preset in zip(names, presets, strict=True):
        console.print(f"{name}: {equations(defaults_of(preset))}", soft_wrap=True, highlight=False)
    table = Table("option", *names)
    for option, values in rows.items():
        table.add_row(option, *("–" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in values))
    console.print(table if rows else "By default all options are the same.")
    ends = ", ".join(f"{name} {curve[-1]:.3g}" for name, curve in curves.items())
    console.print(f"loss after {args.steps} steps on a noisy quadratic, lr {args.lr:g}: {ends}", soft_wrap=True, highlight=False)
    console.print(f"plot written to {path}" if path else "no plot: it needs matplotlib", soft_wrap=True, highlight=False)
    return 0


def run(args: argparse.Namespace, console: Console) -> int:
    _check(args)
    if args.diff:
        return _diff(args, console)
    members = find(" ".join(args.words))
    if not members:
        raise UserError(f"no preset is about {' '.join(args.words)!r}: fusedrms presets lists all")
    if args.json:
        print(json.dumps([_all_of(member) for member in members], indent=1, default=str))
        return 0
    table = Table("preset", "source", "what it is", "by default", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for member in members:
        table.add_row(member.name, f"{member.system}, {member.version}", member.in_words(), member.numbers)
    console.print(table)
    console.print(LEGEND, highlight=False)
    return 0
