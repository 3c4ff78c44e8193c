"""What tests of disk caches need: a folder of Numba's, ways to harm a file, and every warning.

To import it skips a module of tests where there is nothing to test.
"""

import os
import pathlib
import warnings

import numba
import pytest
from numba.core.caching import CacheImpl
from numba.core.types import int64

from fusedrms.kernels import caches, lang

if lang.interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)
if os.name != "posix":
    pytest.skip("modes and owners are those of POSIX", allow_module_level=True)


@pytest.fixture(name="said", autouse=True)
def said_fixture(monkeypatch):
    """Every warning of the test; as in a process where nothing was said before."""
    monkeypatch.setattr(caches, "unusable", {})
    monkeypatch.setattr(caches, "damaged", {})
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


@pytest.fixture(name="folder")
def folder_fixture(tmp_path, monkeypatch) -> pathlib.Path:
    """Numba's, of nobody else's."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.setattr(CacheImpl, "_locator_classes", CacheImpl._locator_classes[:1])  # none beside this file
    source = tmp_path / "source"
    source.mkdir(mode=0o755)
    monkeypatch.setattr(caches, "SOURCE", source)
    return tmp_path / "numba"


def double(x):
    return x + x


def in_new_process(kind=int64) -> bool:
    """Whether machine code came from the cache, where nothing is in memory; it is right in any case."""
    dispatcher = caches.cached_njit()(double)
    assert dispatcher.compile((kind,))(21) == 42
    return bool(sum(dispatcher.stats.cache_hits.values()))


def one(folder: pathlib.Path, kind: str) -> pathlib.Path:
    (path,) = folder.rglob(f"*.{kind}")
    return path


def truncated(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: pathlib.Path) -> None:
    path.write_bytes(b"")


def zeros(path: pathlib.Path) -> None:
    """As a crash leaves what had no time to reach the disk."""
    path.write_bytes(bytes(path.stat().st_size))


def garbage(path: pathlib.Path) -> None:
    path.write_bytes(b"\x80\x05cno_such_module\nname\n.")


def made_a_folder(path: pathlib.Path) -> None:
    path.unlink()
    path.mkdir()
