"""Fixtures: devices, seeds, and memory that is never zero by luck."""

import os
import signal

import pytest
import torch

import gpu
import sample
from fusedrms import FusedRMSProp
from fusedrms.engine.ownership import c_api, torch_words
from fusedrms.engine.tables import configs
from fusedrms.kernels import lang, launch
from tools import parameters, params_of, random_grads, step_and_check

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only then

configs.directories, configs.user_directory = lambda: [configs.SHIPPED], lambda: None  # no file of the user's

if lang.interpreted():  # a block costs milliseconds there, whatever its size
    launch.THREADS, launch.CHUNK, launch.QUANTIZED_THREADS = 1024, 16384, 1024

    from triton.runtime.interpreter import InterpretedFunction

    _call, _called = InterpretedFunction.__call__, set()

    def call(self, *args, **kwargs):
        """Of a function by a kernel: it patches triton.language as its module sees it, where once is enough, half of the time."""
        if self.fn.__module__ in _called:
            return self.rewrite()(*args, **kwargs)
        _called.add(self.fn.__module__)
        return _call(self, *args, **kwargs)

    InterpretedFunction.__call__ = call


def pytest_ignore_collect(collection_path, config):
    """Files without a test for the interpreter need not be imported to find those."""
    asked = collection_path.suffix == ".py" and "interpret" in config.option.markexpr.split(" and ")
    return True if asked and "interpret" not in collection_path.read_text() else None


@pytest.hookimpl(tryfirst=True)  # before items are selected by their marks
def pytest_collection_modifyitems(items):
    sample.mark_the_rest(items)
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
        monkeypatch.setattr(torch_words, "WORDS", torch_words.Words())
        monkeypatch.setattr(c_api, "API", c_api.API._replace(parameter=0))  # or CPython an attribute's function
    if request.param == "python":  # torch before 2.10 has no C interface
        monkeypatch.setattr(c_api, "API", c_api.API._replace(exchange=0))


@pytest.fixture
def optimizer(reading):
    """One that has made two steps."""
    made = FusedRMSProp(parameters([(33,), (4, 6), (2000,)]), momentum=0.9, bias_correction=True)
    for _ in range(2):
        random_grads(params_of(made))
        step_and_check(made)
    return made


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


@pytest.fixture
def config_folders(tmp_path, monkeypatch):
    """Files of configurations are those of this test alone, read anew."""
    folders = [tmp_path / "own", tmp_path / "user"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr(configs, "directories", lambda: folders)
    configs.rows_for.cache_clear()
    yield
    configs.rows_for.cache_clear()


@pytest.fixture
def hears_ctrl_c():
    """Also where the shell has SIGINT ignored in its background, which children inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
