"""What type checkers say of ten users' files, which know the package from the installed wheel alone.

Each line of snippets/ that ends with "# wrong" must be reported, and no other one: not a line of the five files that are right.
"""

import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from conftest import ROOT, Installed, environment

SNIPPETS = sorted((pathlib.Path(__file__).parent / "snippets").glob("*.py"))
RIGHT = [path for path in SNIPPETS if path.name.startswith("right_")]
CACHE = ROOT / "build/mypy"  # of torch, mostly: it holds wherever the same files lie

Found = dict[tuple[str, int], str]  # messages by file and line


@pytest.fixture(scope="module")
def snippets(installed) -> pathlib.Path:
    """A copy of them, outside of the checkout."""
    return shutil.copytree(SNIPPETS[0].parent, installed.directory / "snippets")


def output(folder: pathlib.Path, *command: str | pathlib.Path) -> str:
    """Of a checker of this environment, which looks into the other one."""
    ran = subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 1, f"{command} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def mypy(installed: Installed, folder: pathlib.Path) -> Found:
    options = ("--strict", "--output", "json", "--cache-dir", CACHE, "--python-executable", installed.python)
    said = map(json.loads, output(folder, "mypy", *options, ".").splitlines())
    return {(each["file"], each["line"]): each["message"] for each in said if each["severity"] == "error"}


def pyright(installed: Installed, folder: pathlib.Path, mode: str = "standard") -> Found:
    (folder / "pyrightconfig.json").write_text(json.dumps(dict(typeCheckingMode=mode)))
    said: dict[str, Any] = json.loads(output(folder, "pyright", "--outputjson", "--pythonpath", installed.python))
    errors = [each for each in said["generalDiagnostics"] if each["severity"] == "error"]
    return {(pathlib.Path(each["file"]).name, each["range"]["start"]["line"] + 1): each["message"] for each in errors}


def pyright_strict(installed: Installed, folder: pathlib.Path) -> Found:
    return pyright(installed, folder, "strict")


def test_there_are_ten():
    assert len(SNIPPETS) == 2 * len(RIGHT) == 10


@pytest.mark.parametrize("checker", [mypy, pyright, pyright_strict])
def test_what_is_wrong_is_reported_and_nothing_else(checker: Callable[[Installed, pathlib.Path], Found], installed, snippets):
    lines = [(path.name, line, text) for path in SNIPPETS for line, text in enumerate(path.read_text().splitlines(), 1)]
    wrong = {(name, line): text for name, line, text in lines if text.endswith("# wrong")}
    found = checker(installed, snippets)
    unreported, unexpected = [{key: a[key] for key in a.keys() - b.keys()} for a, b in ((wrong, found), (found, wrong))]
    assert not unreported
    assert not unexpected


def test_what_is_right_runs(installed, snippets):
    installed.run("python", "-c", f"import runpy; [runpy.run_path(name) for name in {[str(snippets / path.name) for path in RIGHT]}]")
