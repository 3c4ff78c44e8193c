"""Triton's disk cache: damaged, full or gone, it stops no launch."""

import os
import shutil
import tempfile
from collections.abc import Callable

import pytest
import torch

from cache_tools import emptied, garbage, made_a_folder, said_fixture, truncated, zeros  # noqa: F401  fixtures
from fusedrms.kernels import caches, lang, launch
from sample import exhaustive


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
        exhaustive("json", emptied, True),
        ("json", made_a_folder, False),
        ("cubin", zeros, True),
        exhaustive("cubin", emptied, True),
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
