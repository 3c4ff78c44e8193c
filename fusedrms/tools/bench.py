"""fusedrms bench: runs the benchmarks of a checkout."""

import argparse
import pathlib
import sys

from rich.console import Console

from .errors import UserError

MISSING = (
    "the benchmarks are in the repository, not in this installation: clone it, and there run pip install -e '.[bench]' and fusedrms bench"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{parser.epilog}; all other arguments are those of the benchmarks themselves"
    if checkout() is None:
        parser.description = f"{parser.description} {MISSING[0].upper()}{MISSING[1:]}."


def checkout() -> pathlib.Path | None:
    """Where the benchmarks are; None if this was installed without them."""
    root = pathlib.Path(__file__).resolve().parents[2]
    return root if (root / "bench/__main__.py").is_file() else None


def run(args: argparse.Namespace, console: Console) -> int:
    root = checkout()
    if root is None:
        raise UserError(MISSING)
    sys.path.insert(0, str(root))
    from bench.__main__ import main

    return main([*args.arguments, *(["--json"] if args.json else [])], "fusedrms bench")
