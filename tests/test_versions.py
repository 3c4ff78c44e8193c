"""The versions that this project is tested with: the table of rows, what was recorded of them, and what pyproject.toml admits."""

import json
import pathlib
import re

import pytest

from fusedrms.tools.tested import order
from version_rows import NEWEST, OLDEST, ROWS

ROOT = pathlib.Path(__file__).parent.parent
RECORDED = {found["row"]: found for found in json.loads((ROOT / "fusedrms/tools/versions.json").read_text())["rows"]}
PYPROJECT = (ROOT / "pyproject.toml").read_text()
LOWER = dict(re.findall(r'^    "([a-z]+)>=([0-9.]+)', PYPROJECT.split("dependencies = [")[1].split("]")[0], re.M))


def same(release: str, version: str) -> bool:
    """Whether a version is that release: 2.13.0+cpu is 2.13.0, and 4.0.0 is 4."""
    parts = [order(text) for text in (release, version)]
    longest = max(map(len, parts))
    return len({(*part, *[0] * (longest - len(part))) for part in parts}) == 1


def test_every_row_was_run():
    """What was recorded is of this table: make test-versions mends it, and rows that are no more are to be deleted."""
    assert list(RECORDED) == [row.session for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.session)
def test_what_was_recorded_of_a_row(row):
    found = RECORDED[row.session]
    assert found["python"].startswith(f"{row.python}.")
    assert found["failed"] == 0, "say it in pyproject.toml, and test with what passes"
    assert found["passed"] > 200
    assert all(same(version, found[name]) for name, version in row.pins.items())
    if row.name == OLDEST:
        assert all(same(version, found[name]) for name, version in LOWER.items()), f"{found} is not what pyproject.toml begins with"


def test_the_oldest_and_the_newest_are_there():
    python = re.search(r'requires-python = ">=(.*),<(.*)"', PYPROJECT)
    assert python
    assert set(LOWER) == {"torch", "triton", "numpy", "numba", "platformdirs", "filelock", "rich"}
    assert (ROWS[0].name, ROWS[0].python) == (OLDEST, python[1])
    assert ROWS[-1].name == NEWEST
    assert re.findall(r"Python :: (3\.\d+)", PYPROJECT) == sorted({row.python for row in ROWS}, key=lambda name: int(name[2:]))


@pytest.mark.parametrize(
    ("a", "b", "equal"), [("4", "4.0.0", True), ("3.12", "3.12.0", True), ("2.9", "2.9.0+cpu", True), ("4", "4.0.1", False)]
)
def test_versions_are_compared_as_numbers(a, b, equal):
    assert same(a, b) == equal
