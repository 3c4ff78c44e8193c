"""Which versions the project was tested with, and how those installed here compare."""

import json
import pathlib
import platform
import re
from typing import Any

import numba
import numpy as np
import torch

from ..kernels import lang

VERSIONS = pathlib.Path(__file__).with_name("versions.json")  # what make test-versions has recorded
NAMES = dict(python="Python", torch="torch", triton="Triton", numba="Numba", numpy="NumPy")
ABSENT, OLDER, NEWER, TESTED, BETWEEN = "absent", "older than tested", "newer than tested", "tested", "between tested versions"


def installed() -> dict[str, str | None]:
    return dict(
        python=platform.python_version(),
        torch=torch.__version__,
        triton=lang.triton and lang.triton.__version__,
        numba=numba.__version__,
        numpy=np.__version__,
    )


def rows() -> list[dict[str, Any]]:
    """Those of which every test passed."""
    return [row for row in json.loads(VERSIONS.read_text())["rows"] if not row["failed"]]


def release(name: str, version: str) -> str:
    """What of a version tells tested from not: 3.11 of Python 3.11.7, and 2.13.0 of torch 2.13.0+cpu, but all of 2.14.0.dev20260901+cpu."""
    public = version.partition("+")[0]
    return ".".join(public.split(".")[:2]) if name == "python" else public


def order(version: str) -> tuple[int, ...]:
    """By its numbers; what is before a release is taken as that release."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def compared(name: str, version: str | None, tested: list[str]) -> dict[str, str | None]:
    """One package: its status, and the oldest and newest that were tested."""
    known = sorted({release(name, other) for other in tested}, key=order)
    if version is None:
        status = ABSENT
    elif (own := release(name, version)) in known:
        status = TESTED
    elif order(own) < order(known[0]):
        status = OLDER
    else:
        status = NEWER if order(own) > order(known[-1]) else BETWEEN
    return dict(installed=version, status=status, oldest=known[0], newest=known[-1])


def together(versions: dict[str, str | None], table: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The row that has just these versions."""
    wanted = {name: version and release(name, version) for name, version in versions.items()}
    return next((row for row in table if all(release(name, row[name]) == wanted[name] for name in NAMES)), None)


def nearest(versions: dict[str, str | None], table: list[dict[str, Any]]) -> dict[str, Any]:
    """The row to go to: of the same Python if there is one, with the newest torch that is no newer than the installed one."""
    python = release("python", versions["python"] or "")
    among = [row for row in table if release("python", row["python"]) == python] or table
    among = sorted(among, key=lambda row: order(row["torch"]))
    return next((row for row in reversed(among) if order(row["torch"]) <= order(versions["torch"] or "")), among[0])


def remedy(versions: dict[str, str | None], row: dict[str, Any]) -> str:
    """How to have the versions of a row."""
    wanted = {name: release(name, row[name]) for name in NAMES if versions[name] is not None}
    python = wanted.pop("python")
    different = f" in Python {python}" if python != release("python", versions["python"] or "") else ""
    pins = " ".join(f"{name}=={version}" for name, version in wanted.items())
    return f"if something fails, take versions that were tested together{different}: pip install {pins}"


def in_words(name: str, found: dict[str, str | None]) -> str:
    bound = {OLDER: f", whose oldest is {found['oldest']}", NEWER: f", whose newest is {found['newest']}"}
    return f"{NAMES[name]} {found['installed'] or ''}".rstrip() + f" is {found['status']}{bound.get(str(found['status']), '')}"


def report(versions: dict[str, str | None] | None = None, table: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """How versions compare with the table.

    Args:
        versions: by name, of a Triton that is missing None (default: those that are installed).
        table: rows of make test-versions (default: those of this version of the package).

    Returns:
        combination: the name of the row that has all of them, or None; packages: of each `installed`, `status`, `oldest` and `newest`;
        said: the result in a sentence; remedy: what to do if something fails, None where all were tested together.
    """
    versions, table = installed() if versions is None else versions, rows() if table is None else table
    packages = {name: compared(name, versions[name], [row[name] for row in table]) for name in NAMES}
    if row := together(versions, table):
        said = f"tested with these versions on {row['date']}: {row['passed']} tests passed"
        return dict(combination=row["row"], packages=packages, said=said, remedy=None)
    untested = [in_words(name, found) for name, found in packages.items() if found["status"] != TESTED]
    said = f"not tested: {'; '.join(untested)}" if untested else "each of these versions was tested, but not all of them together"
    return dict(combination=None, packages=packages, said=said, remedy=remedy(versions, nearest(versions, table)))
