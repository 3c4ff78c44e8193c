"""The room for devices: the only file that asks torch about GPUs. All else asks here.

Another kind of device that torch and Triton know takes a row in KINDS.
"""

import contextlib
import functools
import pathlib
import platform
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import lang


class Kind(NamedTuple):
    """The GPUs of one torch.device.type."""

    title: str  # for messages
    processors: str  # the property that says how many programs run at a time, at least
    target: Callable[[torch.device], str]  # what Triton compiles for, as it is called
    stack: Callable[[], str | None]  # version of what drives them
    activity: str | None  # in torch.profiler.ProfilerActivity


def _cuda_target(device: torch.device) -> str:
    if torch.version.hip:
        return properties(device).gcnArchName
    return "sm_{}{}".format(*module(device).get_device_capability(device))


def _cuda_stack() -> str:
    """The kernel module's version, else that of what torch was built for."""
    with contextlib.suppress(OSError):
        return pathlib.Path("/sys/module/nvidia/version").read_text().strip()
    return f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"


KINDS = {"cuda": Kind("CUDA or ROCm", "multi_processor_count", _cuda_target, _cuda_stack, "CUDA")}


@functools.cache
def _module(kind: str) -> Any:
    return torch.get_device_module(kind)


def module(device: torch.device) -> Any:
    """torch's own for a kind of GPU, such as torch.cuda."""
    return _module(device.type)


def properties(device: torch.device) -> Any:
    return module(device).get_device_properties(device)


def is_gpu(device: torch.device) -> bool:
    return device.type in KINDS


def on(device: torch.device, values: dict[str, Any]) -> Any:
    """The one that is for such a device, of one for "cpu" and one for "gpu"."""
    return values["gpu" if is_gpu(device) else "cpu"]


def uses_triton(device: torch.device) -> bool:
    """Whether that driver launches for it, or Numba's."""
    return is_gpu(device) or lang.interpreted()


def gpus(kind: str | None = None) -> list[torch.device]:
    """Those of this machine; kind: a name in KINDS, by default all."""
    modules = {name: _module(name) for name in KINDS if kind in (None, name)}
    return [torch.device(name, n) for name, module in modules.items() if module.is_available() for n in range(module.device_count())]


def find(kind: str | None = None) -> torch.device:
    """The first device of a kind, "cpu" or a name in KINDS; by default a GPU where there is one.

    Raises:
        LookupError: there is none.
    """
    if kind == "cpu":
        return torch.device(kind)
    found = [*gpus(kind), *([] if kind else [torch.device("cpu")])]
    if not found:
        raise LookupError(f"torch finds no {KINDS[kind].title} device")
    return found[0]


def supported() -> str:
    """Where the optimizers run, in words."""
    return " and ".join([*(f"{kind} ({KINDS[kind].title})" for kind in KINDS), "cpu"])


@functools.cache
def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def model(device: torch.device) -> str:
    """Its name, as its maker gives it."""
    return module(device).get_device_name(device) if is_gpu(device) else _cpu_model()


def target(device: torch.device) -> str | None:
    """What Triton compiles for there: "sm_90", "gfx942"; None on a CPU."""
    return KINDS[device.type].target(device) if is_gpu(device) else None


def stack(device: torch.device) -> str | None:
    """Version of what drives it; None for a CPU."""
    return KINDS[device.type].stack() if is_gpu(device) else None


def multiprocessors(device: torch.device) -> int:
    """How many share out a launch; 1 on a CPU, where the interpreter runs."""
    return getattr(properties(device), KINDS[device.type].processors) if is_gpu(device) else 1


def warp_size() -> int:
    """Threads of a warp, on the GPUs that this torch is built for."""
    return 64 if torch.version.hip else 32


# streams


def current_stream(device: torch.device) -> Any:
    return module(device).current_stream(device)


def keep(tensors: Iterable[Tensor], made_on: Any) -> None:
    """Their memory must not be given away while a launch on another stream than theirs still reads it."""
    stream = current_stream(made_on.device)
    if stream != made_on:
        for tensor in tensors:
            tensor.record_stream(stream)


def capturing() -> bool:
    """Whether what is launched now is recorded in a graph, to be run later."""
    for kind in KINDS:  # each step asks, in half of the time of any()
        module = _module(kind)
        if module.is_initialized() and module.is_current_stream_capturing():
            return True
    return False


_NOTHING = contextlib.nullcontext()


def current(device: torch.device) -> contextlib.AbstractContextManager:
    """Make it the current one of its kind, as a launch on its streams needs."""
    if not is_gpu(device) or module(device).current_device() == device.index:
        return _NOTHING
    return module(device).device(device)


# measurements


def synchronize(device: torch.device) -> None:
    """Wait until it has done all that it was asked."""
    if is_gpu(device):
        module(device).synchronize(device)


def seconds(device: torch.device, run: Callable[[], object]) -> float:
    """How long it takes: on a GPU by its own clock, without what is under way already."""
    if not is_gpu(device):
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (module(device).Event(enable_timing=True) for _ in range(2))
    begin.record(current_stream(device))
    run()
    end.record(current_stream(device))
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def free_bytes(device: torch.device) -> int:
    """Of a GPU's memory."""
    return module(device).mem_get_info(device)[0]


def empty_cache(device: torch.device) -> None:
    """Give back what torch's allocator keeps."""
    if is_gpu(device):
        module(device).empty_cache()


def peak_bytes(device: torch.device, run: Callable[[], object]) -> int:
    """The most of a GPU's memory that is taken at a time meanwhile, beyond what was before."""
    synchronize(device)
    module(device).reset_peak_memory_stats(device)
    before = module(device).memory_allocated(device)
    run()
    synchronize(device)
    return module(device).max_memory_allocated(device) - before
