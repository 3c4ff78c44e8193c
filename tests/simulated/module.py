"""torch.simulated: what torch.cuda is for NVIDIA's GPUs."""

import contextlib
import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from . import NAME, streams
from .memory import alias, device_bytes, memory
from .streams import (  # noqa: F401
    N_DEVICES,
    Event,
    Graph,
    Stream,
    current_stream,
    default_stream,
    graph,
    index_of,
    set_stream,
    state,
    synchronize,
)
from .streams import use_stream as stream  # noqa: F401

CUDAGraph = Graph
TOTAL = 8 << 30  # bytes of memory


class Hooks(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return True

    def has_primary_context(self, device: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


class Guard(torch._C._acc.DeviceGuard):
    def type_(self) -> Any:
        return torch._C._autograd.DeviceType.PrivateUse1


def is_available() -> bool:
    return True


def is_initialized() -> bool:
    return True


def init() -> None:
    pass


_lazy_init = init


def _is_in_bad_fork() -> bool:
    return False


def device_count() -> int:
    return N_DEVICES


def current_device() -> int:
    return state.device


def set_device(device: torch.device | int | str) -> None:
    state.device = index_of(device)


@contextlib.contextmanager
def device(index: torch.device | int | str) -> Iterator[None]:
    before = state.device
    set_device(index)
    try:
        yield
    finally:
        state.device = before


def device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    return device(tensor.device) if tensor.device.type == NAME else contextlib.nullcontext()


def get_device_name(device: Any = None) -> str:
    return "Simulated GPU"


def get_device_capability(device: Any = None) -> tuple[int, int]:
    return 9, 0


def get_device_properties(device: Any = None) -> SimpleNamespace:
    return SimpleNamespace(name=get_device_name(), multi_processor_count=4, total_memory=TOTAL, major=9, minor=0)


def is_current_stream_capturing() -> bool:
    return streams.capturing() is not None


def set_sync_debug_mode(mode: str) -> None:
    state.sync_debug = mode


def empty_cache() -> None:
    pass


def mem_get_info(device: Any = None) -> tuple[int, int]:
    return TOTAL - memory_allocated(device), TOTAL


def memory_allocated(device: Any = None) -> int:
    return memory.in_use[index_of(device)]


def max_memory_allocated(device: Any = None) -> int:
    return memory.peak[index_of(device)]


def reset_peak_memory_stats(device: Any = None) -> None:
    memory.peak[index_of(device)] = memory_allocated(device)


def manual_seed(seed: int) -> None:
    pass  # numbers come from the CPU's generator


manual_seed_all = manual_seed


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16]


def _restore(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage | None:
    """What torch.load puts on this device."""
    if not location.startswith(NAME):
        return None
    with device(location):
        made = device_bytes(storage.nbytes(), state.device)
    alias(made).copy_(torch.tensor([], dtype=torch.uint8, device="cpu").set_(storage)[: storage.nbytes()])
    return made.untyped_storage()


def _tag(storage: torch.UntypedStorage) -> str | None:
    return f"{NAME}:{storage.device.index}" if storage.device.type == NAME else None


def patch() -> None:
    """What torch does in C++ for devices that it knows: copies of tensors that are no parameters, and files."""
    original = Tensor.__deepcopy__

    def deepcopy(self: Tensor, memo: dict) -> Tensor:
        if self.device.type != NAME:
            return original(self, memo)
        if id(self) not in memo:
            memo[id(self)] = self.detach().clone().requires_grad_(self.requires_grad)
            memo[id(self)].grad = copy.deepcopy(self.grad, memo)
        return memo[id(self)]

    Tensor.__deepcopy__ = deepcopy
    torch.serialization.register_package(0, _tag, _restore)
