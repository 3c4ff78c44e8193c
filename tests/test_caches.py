"""Disk caches of Numba and Triton: damaged, full, gone, or open to others, they stop no step."""

import grp
import os
import pathlib
import pickle
import pwd
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import numba
import pytest
import torch
from numba.core.caching import CacheImpl
from numba.core.types import float64, int64

from fusedrms.kernels import caches, lang, launch
from fusedrms.tools import compile, doctor

if lang.interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)
if os.name != "posix":
    pytest.skip("modes and owners are those of POSIX", allow_module_level=True)

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


@pytest.fixture(autouse=True)
def said(monkeypatch):
    """Every warning of the test; as in a process where nothing was said before."""
    monkeypatch.setattr(caches, "unusable", {})
    monkeypatch.setattr(caches, "damaged", {})
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


# Numba


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
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


def flipped(path: pathlib.Path) -> None:
    """One bit, of the machine code."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def made_a_folder(path: pathlib.Path) -> None:
    path.unlink()
    path.mkdir()


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


# who can write


@pytest.mark.parametrize(
    ("which", "mode", "trusted"),
    [
        ("leaf", 0o777, False),
        ("leaf", 0o1777, False),
        ("named", 0o777, False),
        ("named", 0o1777, True),  # where nobody can replace another's folder
        ("nbi", 0o666, False),
        ("nbc", 0o666, False),
        ("leaf", 0o755, True),
        ("nbc", 0o644, True),
    ],
)
def test_others_can_write(folder, said, monkeypatch, which, mode, trusted):
    """It is not read: what lies there could be anything."""
    in_new_process()
    {"leaf": one(folder, "nbi").parent, "named": folder}.get(which, next(folder.rglob(f"*.{which}"), folder)).chmod(mode)
    assert [in_new_process(), in_new_process()] == [trusted] * 2
    assert len(said) == (not trusted)
    for warning in said:
        assert caches.TRUST in str(warning.message)
        assert str(folder) in str(warning.message)
    monkeypatch.setenv(caches.TRUST, "1")
    assert in_new_process()


@pytest.mark.parametrize(
    ("name", "members", "trusted"),
    [("her", [], True), ("her", ["her"], True), ("her", ["her", "him"], False), ("him", [], False), ("users", [], False)],
)
def test_the_group_can_write(folder, said, monkeypatch, name, members, trusted):
    """Fine where it is the user's alone, as umask 002 takes for granted."""
    in_new_process()
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name=name, gr_mem=members))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=dict(her=os.geteuid(), him=54321)[name]))
    one(folder, "nbi").parent.chmod(0o775)
    assert in_new_process() == trusted
    assert len(said) == (not trusted)


def test_the_group_can_write_the_source_as_well(folder, said, monkeypatch):
    in_new_process()
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name="users", gr_mem=[]))
    for path in (caches.SOURCE, one(folder, "nbi").parent):
        path.chmod(0o775)
    assert in_new_process()
    assert not said


def test_another_users(folder, said, monkeypatch):
    in_new_process()
    monkeypatch.setattr(caches, "_trusted", lambda source: {54321})
    assert not in_new_process()
    assert [f"belongs to user {os.geteuid()}" in str(warning.message) for warning in said] == [True]


# Triton


@pytest.fixture
def launched(tmp_path, monkeypatch) -> list:
    """Launches on a stand-in for CUDA's library, with a cache that is filled."""
    if lang.triton is None:
        pytest.skip("needs Triton")
    import cuda_library

    if not cuda_library.compiler():
        pytest.skip("Triton needs a C compiler to launch")
    from triton import runtime

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    found: list = []
    cuda_library.on_launch(found.append)
    runtime.driver.set_active(cuda_library.driver((9, 0), lambda: 99, lambda device: None, lambda device: 77))
    launch_norms()
    yield found
    from fusedrms.kernels.gpu.norm import norms_kernel

    norms_kernel.device_caches.clear()
    runtime.driver.set_active(None)
    cuda_library.on_launch(None)


def launch_norms() -> None:
    """Twice, where nothing is in memory."""
    from fusedrms.kernels.gpu.norm import norms_kernel

    norms_kernel.device_caches.clear()
    run = launch.prepare_norms(torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, dtype=torch.float64))
    for _ in range(2):
        run(torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("kind", "harm", "heals"),
    [
        ("json", truncated, True),
        ("json", emptied, True),
        ("json", made_a_folder, False),
        ("cubin", zeros, True),
        ("cubin", emptied, True),
        ("ptx", garbage, True),  # not UTF-8
    ],
)
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function CompiledKernel.__del__")  # Triton 3.9, of one that was never made
def test_a_damaged_file_of_triton(launched, tmp_path, said, kind, harm: Callable, heals):
    (path,) = (path for path in (tmp_path / "triton").rglob(f"norms_kernel.{kind}") if not path.name.startswith("__grp__"))
    harm(path)
    for _ in range(2):
        launch_norms()
    assert len(launched) == 6
    (warning,) = said
    assert ("damaged" if heals else "cannot be used") in str(warning.message)
    assert str(tmp_path / "triton") in str(warning.message)
    assert bool(caches.unusable) == (not heals)


def test_a_folder_that_triton_cannot_write(launched, tmp_path, said, monkeypatch):
    """Another is taken for the compilation alone, and nothing stays of it."""
    from triton import knobs

    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    bad = str(tmp_path / "file/none")
    monkeypatch.setenv("TRITON_CACHE_DIR", bad)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for _ in range(2):
        launch_norms()
    assert len(launched) == 6
    assert [f"Triton's cache in {bad} cannot be used" in str(warning.message) for warning in said] == [True]
    assert "TRITON_CACHE_DIR" in str(said[0].message)
    assert knobs.cache.dir == os.environ["TRITON_CACHE_DIR"] == bad
    assert knobs.cache.manager_class is None
    assert not knobs.compilation.always_compile
    assert not list((tmp_path / "temporary").iterdir())


def test_a_full_disk_of_triton(launched, tmp_path, said, monkeypatch):
    from triton.runtime.cache import FileCacheManager

    put = FileCacheManager.put

    def full(self, data, filename, binary=True):
        if self.cache_dir.startswith(str(tmp_path)):
            raise OSError(28, "No space left on device")
        return put(self, data, filename, binary)

    monkeypatch.setattr(FileCacheManager, "put", full)
    shutil.rmtree(tmp_path / "triton")
    launch_norms()
    assert len(launched) == 4
    assert ["No space left" in str(warning.message) for warning in said] == [True]


def test_an_error_of_the_kernel_is_raised(launched, said):
    """Itself, and not what came of a try elsewhere."""
    from fusedrms.kernels.gpu.norm import norms_kernel

    def load():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        caches.loaded(norms_kernel, load)
    assert not said
