"""Triton's own driver for CUDA, C code and all, above a stand-in for CUDA's library: what it launches goes to a function of Python's."""

import ctypes
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

SOURCE = pathlib.Path(__file__).parent / "libcuda.c"


class Launch(NamedTuple):
    """What CUDA's library is asked for."""

    function: int  # handle
    grid: tuple[int, int, int]
    threads: int  # of a program
    shared: int  # bytes
    stream: int
    params: Any  # addresses of the arguments


class _Config(ctypes.Structure):
    _fields_ = (("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint), ("stream", ctypes.c_void_p))


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Config), ctypes.POINTER(ctypes.c_void_p))


def compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")


@functools.cache
def library() -> ctypes.CDLL:
    """Compiled and loaded where Triton's C code finds it; once a process."""
    from triton.backends import nvidia

    folder = tempfile.mkdtemp(prefix="libcuda-")
    include = pathlib.Path(nvidia.__file__).parent / "include"
    command = [compiler(), "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", f"-I{include}", SOURCE, "-o", f"{folder}/libcuda.so.1"]
    subprocess.run(command, check=True)
    os.symlink("libcuda.so.1", f"{folder}/libcuda.so")  # by which Triton 3.5 links
    os.environ["TRITON_LIBCUDA_PATH"] = folder
    return ctypes.CDLL(f"{folder}/libcuda.so.1", mode=ctypes.RTLD_GLOBAL)


def on_launch(function: Callable[[Launch], None] | None) -> None:
    """What becomes of launches from now on; None: nothing."""
    if function is None:
        library().set_launch(None)
        return

    def called(handle, config, params):
        asked = config.contents
        function(Launch(handle, tuple(asked.grid), asked.block[0], asked.shared, asked.stream or 0, params))
        return 0

    on_launch.kept = _CALLBACK(called)  # type: ignore[attr-defined]
    library().set_launch(on_launch.kept)  # type: ignore[attr-defined]


def driver(capability: tuple[int, int], current_device: Callable, set_current_device: Callable, current_stream: Callable) -> Any:
    """Triton's, to be made the active one; current_stream: of a device's index the stream's handle."""
    library()
    from triton.backends.nvidia.driver import CudaDriver

    made = CudaDriver()
    made.get_device_capability = lambda device=0: capability
    made.get_current_device, made.set_current_device, made.get_current_stream = current_device, set_current_device, current_stream
    return made
