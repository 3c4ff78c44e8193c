"""What commands print to: a terminal, a file or a pipe, of whatever encoding."""

import codecs
import io
import os
import sys

from rich.console import Console

PLAIN = {"•": "*", "µ": "u", "×": "x", "–": "-", "…": "..."}
PLAIN |= {"√": "sqrt", "←": "<-", "·": "*", "−": "-", "²": "^2", "α": "alpha", "μ": "mu", "ε": "eps"}
_ERRORS = "fusedrms.plain"


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for the characters that an encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error(_ERRORS, _plain)


def replace_missing() -> None:
    """Where stdout or stderr is closed, as that of a daemon may be, Python has None for it: what is printed there goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for as long as the process runs)


def plain_where_needed(file: object) -> None:
    """A file prints plain characters in place of those that its encoding lacks, where it would raise an error."""
    if isinstance(file, io.TextIOWrapper) and file.errors == "strict":
        file.reconfigure(errors=_ERRORS)


def for_progress(console: Console, shown: bool) -> Console:
    """Where a bar of progress goes. If it is not shown, nowhere: rich before 14.3 prints an empty line for one that is disabled."""
    return console if shown else Console(quiet=True)


def console(file: io.TextIOWrapper | None = None, width: int = 140) -> Console:
    """Of a file, else of stdout; width: where it is no terminal."""
    out = file or sys.stdout
    plain_where_needed(out)
    return Console(file=file) if out.isatty() else Console(file=file, width=width)
