"""Plots that commands write, where there is matplotlib."""

import io
import pathlib
from typing import Any

from . import files
from .errors import UserError


def possible() -> bool:
    """Whether there is matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def figure(width: float, height: float) -> Any:
    """A figure of matplotlib's, its size in inches, and its axes; UserError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("a plot needs matplotlib: pip install matplotlib") from None
    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots()


def write(path: pathlib.Path, made: Any) -> None:
    """A PNG, whole or not at all; UserError where --output cannot be written."""
    made.savefig(file := io.BytesIO(), format="png", dpi=120)
    try:
        files.write(path, file.getvalue())
    except OSError as error:
        raise UserError(f"--output {path}: {error.strerror}: name another place") from None
