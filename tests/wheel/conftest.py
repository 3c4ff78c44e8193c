"""The built files, and a new environment with the wheel alone: no test here runs code of the checkout.

`python tests/wheel/build_dist.py`, which is make dist, says where the files are.
"""

import os
import pathlib
import shutil
import subprocess
import venv
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# what would bring in the checkout, or caches of other runs
UNSET = ("PYTHONPATH", "PYTHONHOME", "MYPYPATH", "FUSEDRMS_CONFIG_DIR", "NUMBA_CACHE_DIR", "TRITON_CACHE_DIR")


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in UNSET} | more


class Installed(NamedTuple):
    """A new environment, and an empty directory to work in."""

    python: pathlib.Path
    directory: pathlib.Path

    def run(self, *command: str | pathlib.Path, code: int = 0) -> str:
        """What a program of the environment prints, by its name: python, fusedrms, or what a test has installed there."""
        program, *arguments = command
        env = environment(XDG_CACHE_HOME=str(self.directory / "cache"))
        full = [self.python.with_name(str(program)), *arguments]
        ran = subprocess.run(full, cwd=self.directory, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == code, f"{' '.join(map(str, command))} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout + ran.stderr


def built(pattern: str) -> pathlib.Path:
    """The one file of that kind."""
    folder = os.environ.get("FUSEDRMS_DIST")
    if not folder:
        pytest.skip("FUSEDRMS_DIST names no folder with a wheel: make dist")
    found = list(pathlib.Path(folder).glob(pattern))
    assert len(found) == 1, f"{folder} has {found} for {pattern}"
    return found[0]


@pytest.fixture(scope="session")
def wheel() -> pathlib.Path:
    return built("*.whl")


@pytest.fixture(scope="session")
def sdist() -> pathlib.Path:
    return built("*.tar.gz")


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=True)
    (folder / "empty").mkdir()
    new = Installed(folder / "venv/bin/python", folder / "empty")
    options = ("--quiet", "--no-compile", "--disable-pip-version-check", "--constraint", ROOT / "constraints.txt")
    new.run("python", "-m", "pip", "install", *options, wheel)
    yield new
    shutil.rmtree(folder)  # a gigabyte, which pytest would keep
