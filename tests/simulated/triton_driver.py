"""Triton on the simulated GPUs: its own front end, up to what it would compile."""

from types import SimpleNamespace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from . import module
from .launches import launched
from .streams import current_stream, state

N_OTHERS = 5  # arguments of a launcher before the kernel's: function, metadata, hooks
TARGET = GPUTarget("cuda", 90, 32)


class Driver:
    """What Triton asks of a GPU."""

    utils = SimpleNamespace(
        get_device_properties=lambda device: dict(max_shared_mem=232448, multiprocessor_count=4, warpSize=32),
        unload_module=lambda module: None,
    )

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_current_device(self) -> int:
        return state.device

    def set_current_device(self, device: int) -> None:
        module.set_device(device)

    def get_current_stream(self, device: int) -> int:
        return current_stream(device).stream_id

    def get_active_torch_device(self) -> torch.device:
        return torch.device("simulated", state.device)

    def get_device_interface(self) -> Any:
        return module


class StandIn:
    """In place of what Triton compiles, which takes seconds a kernel; called as that is."""

    n_regs, n_spills = 32, 0
    function = packed_metadata = None

    def __init__(self, kernel: JITFunction, signature: dict[str, str]):
        self._kernel, self._signature = kernel, signature
        self.name = kernel.__name__

    def launch_metadata(self, grid: tuple, stream: int, *args: Any) -> None:
        return None

    def run(self, x: int, y: int, z: int, stream: int, *args: Any) -> None:
        launched(self._kernel, self._signature, x * y * z, stream, args[N_OTHERS:])

    def __getitem__(self, grid: tuple):
        def runner(*args: Any, stream: int | None = None) -> None:
            stream = driver.active.get_current_stream(driver.active.get_current_device()) if stream is None else stream
            self.run(*grid, stream, *(self.function, self.packed_metadata, None, None, None), *args)

        return runner


_compile = JITFunction._do_compile


def stand_in(self: JITFunction, key: Any, signature: dict[str, str], device: int, *rest: Any, **options: Any) -> Any:
    """In place of JITFunction._do_compile."""
    if not isinstance(driver.active, Driver):  # what is compiled for others
        return _compile(self, key, signature, device, *rest, **options)
    cache = self.device_caches[device][0]
    cache[key] = StandIn(self, dict(signature))
    return cache[key]


def install() -> None:
    driver._default = Driver()
    driver.set_active(None)  # the default is taken at the next launch
    JITFunction._do_compile = stand_in
