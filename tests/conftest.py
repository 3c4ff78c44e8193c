"""Fixtures: devices, seeds, and memory that is never zero by luck."""

import os

import pytest
import torch

import gpu
from fusedrms.engine import addresses, configs
from fusedrms.engine.torch_words import Words
from fusedrms.kernels import lang, launch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only then

configs.directories, configs.user_directory = lambda: [configs.SHIPPED], lambda: None  # no file of the user's

if lang.interpreted():  # a block costs milliseconds there, whatever its size
    launch.THREADS, launch.CHUNK, launch.CODED_THREADS = 1024, 16384, 1024

    from triton.runtime.interpreter import InterpretedFunction

    _call, _called = InterpretedFunction.__call__, set()

    def call(self, *args, **kwargs):
        """Of a function by a kernel: it patches triton.language as its module sees it, where once is enough, half of the time."""
        if self.fn.__module__ in _called:
            return self.rewrite()(*args, **kwargs)
        _called.add(self.fn.__module__)
        return _call(self, *args, **kwargs)

    InterpretedFunction.__call__ = call


def pytest_collection_modifyitems(items):
    if not gpu.EXISTS:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"no GPU: {gpu.KIND}"))


@pytest.fixture(params=["cpu", pytest.param(gpu.KIND, marks=pytest.mark.gpu)])
def device(request) -> torch.device:
    return torch.device(request.param, 0) if request.param == gpu.KIND else torch.device(request.param)


@pytest.fixture(params=["words", "dlpack", "python"])
def reading(request, monkeypatch):
    """All ways of reading addresses."""
    if request.param != "words":  # where torch keeps things otherwise
        monkeypatch.setattr(addresses, "WORDS", Words())
    if request.param == "python":  # torch before 2.10 has no C interface
        monkeypatch.setattr(addresses, "FUNCTIONS", addresses.FUNCTIONS._replace(exchange=0))


@pytest.fixture(autouse=True)
def _finished():
    yield
    gpu.finish()


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """torch.empty yields NaN, so that a value nobody wrote is seen."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    algorithms = torch.are_deterministic_algorithms_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.utils.deterministic.fill_uninitialized_memory = before
    torch.use_deterministic_algorithms(algorithms)
