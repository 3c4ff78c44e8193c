"""Numba's disk cache: damaged, full or gone, it stops no step."""

import os
import pathlib
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from numba.core.caching import CacheImpl
from numba.core.types import float64, int64

from cache_tools import double, emptied, folder_fixture, garbage, in_new_process, made_a_folder, one, said_fixture, truncated, zeros  # noqa: F401  fixtures
from fusedrms.kernels import caches, rules
from fusedrms.kernels.cpu.language import compile_rule
from fusedrms.tools import compile, doctor

STEP = """
import resource, torch, fusedrms
p = torch.nn.Parameter(torch.ones(4))
p.grad = torch.ones(4)
optimizer = fusedrms.FusedRMSProp([p])
{before}
for _ in range(2):
    optimizer.step()
print(p.tolist() == [p[0].item()] * 4, p[0].item() < 1)
"""


def steps(folder: pathlib.Path, before: str = "") -> str:
    """What two steps in a process of their own print, to stderr."""
    run = subprocess.run(
        [sys.executable, "-c", STEP.format(before=before)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.stdout == "True True\n", run.stderr
    return run.stderr


def flipped(path: pathlib.Path) -> None:
    """One bit, of the machine code."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def made_a_pipe(path: pathlib.Path) -> None:
    path.unlink()
    os.mkfifo(path)


def with_an_index(change: Callable[[dict], object]) -> Callable[[pathlib.Path], None]:
    """A pickle as Numba's, of this version and source, but of other content."""

    def harm(path: pathlib.Path) -> None:
        with open(path, "rb") as file:
            version, (stamp, index) = pickle.load(file), pickle.loads(file.read())
        path.write_bytes(pickle.dumps(version) + pickle.dumps((stamp, change(index))))

    return harm


@pytest.mark.parametrize(
    ("kind", "harm", "says", "heals"),
    [
        ("nbi", with_an_index(lambda index: 3), "damaged", True),
        ("nbi", with_an_index(lambda index: dict.fromkeys(index, 7)), "damaged", True),
        ("nbi", with_an_index(lambda index: dict.fromkeys(index, "../elsewhere.nbc")), "damaged", True),
        ("nbi", made_a_pipe, "cannot be used", False),
        ("nbc", made_a_pipe, "cannot be used", False),
        ("nbi", truncated, "damaged", True),
        ("nbi", emptied, "damaged", True),
        ("nbi", zeros, "damaged", True),
        ("nbi", garbage, "damaged", True),
        ("nbi", pathlib.Path.unlink, "", True),
        ("nbi", made_a_folder, "cannot be used", False),
        ("nbc", truncated, "damaged", True),
        ("nbc", emptied, "damaged", True),
        ("nbc", zeros, "damaged", True),
        ("nbc", flipped, "damaged", True),
        ("nbc", pathlib.Path.unlink, "", True),
        ("nbc", made_a_folder, "cannot be used", False),
    ],
)
def test_a_damaged_file(folder, said, kind, harm, says, heals):
    """It is compiled again, one warning names the folder, and what can be is written anew."""
    assert not in_new_process()
    assert in_new_process()
    harm(one(folder, kind))
    assert not in_new_process()
    assert in_new_process() == heals
    assert len(said) == bool(says)
    for warning in said:
        assert warning.category is UserWarning
        assert says in str(warning.message)
        assert str(folder) in str(warning.message)
    assert bool(caches.unusable) == (not heals)


def test_machine_code_for_other_types(folder, said):
    """As of two processes that wrote a new index at once: the data of one are named by that of the other."""
    assert not in_new_process(int64)
    first = one(folder, "nbc")
    assert not in_new_process(float64)
    (second,) = set(folder.rglob("*.nbc")) - {first}
    shutil.copy(first, second)
    assert not in_new_process(float64)
    assert in_new_process(float64)
    assert in_new_process(int64)
    assert ["damaged" in str(warning.message) for warning in said] == [True]


@pytest.mark.parametrize("gone", [True, False])
def test_a_folder_that_vanishes(folder, said, gone):
    """Between the look for it and the write, or a file takes its place."""
    dispatcher = caches.cached_njit()(double)
    shutil.rmtree(pathlib.Path(dispatcher._cache.cache_path))
    if not gone:
        pathlib.Path(dispatcher._cache.cache_path).write_text("")
    assert dispatcher.compile((int64,))(21) == 42
    assert [str(warning.message).partition(", so")[0] for warning in said] == (
        [] if gone else [f"Numba's cache in {dispatcher._cache.cache_path} cannot be used"]
    )


def test_no_place_to_write(folder, said, monkeypatch):
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    for _ in range(2):
        assert not in_new_process()
    assert len(said) == 1
    assert "NUMBA_CACHE_DIR" in str(said[0].message)
    assert str(said[0].message) in doctor.advice([])


def test_compile_fails_where_nothing_is_kept(monkeypatch):
    """It is there to fill the caches; of another compiler's it asks nothing."""
    monkeypatch.setattr(caches, "unusable", {caches.NUMBA: "the disk is full"})
    compile.seconds(compile.Job("sm_90", "norms", lambda: None))
    with pytest.raises(OSError, match="the disk is full"):
        compile.seconds(compile.Job("cpu", "norms", lambda: None))


@pytest.mark.exhaustive
def test_whole_steps_on_a_full_disk_and_after_a_crash(tmp_path):
    """Files may have 50 kB, which some fit into; then those are cut."""
    folder = tmp_path / "numba"
    errors = steps(folder, "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))")
    assert errors.count("UserWarning") == errors.count("UserWarning: Numba's cache in") == 1
    assert str(folder) in errors
    files = list(folder.rglob("*.nb[ic]"))
    assert files
    for path in files:
        truncated(path)
    errors = steps(folder)
    assert errors.count("UserWarning") == errors.count("UserWarning: Numba's cache is damaged") == 1
    assert steps(folder) == ""


def test_storage_formats_share_a_compiled_rule():
    """Of a process, in which compiling it anew for each would take more time than all the rest of a loop."""
    assert compile_rule(rules.apply, float64) is compile_rule(rules.apply, float64)


def test_a_change_in_another_file(tmp_path, monkeypatch):
    """Which a function takes a constant from: what was compiled before does not count."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)  # the function's cache is beside it, and the project's need not be made anew
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "loop.py").write_text(
        "from constants import N\nfrom fusedrms.kernels.caches import cached_njit\n\n@cached_njit()\ndef plus(x):\n    return x + N\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from loop import plus; print(plus(1), sum(plus.stats.cache_hits.values()))"
    for n, hits in ((1, 0), (1, 1), (2, 0)):
        (tmp_path / "constants.py").write_text(f"N = {n}")
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert said == f"{1 + n} {hits}\n"
