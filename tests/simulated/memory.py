"""Memory of the simulated GPUs, as torch's caching allocator deals it out: new memory is poisoned, and so is what is given away."""

import bisect
import ctypes
import functools
import weakref

import numpy as np
import torch
from torch import Tensor

from .streams import Stream, capturing, current_stream, lock

ALIGNMENT = 512  # bytes, as cudaMalloc's
POISON = 0xFF  # NaN as a float, -1 as an integer
_EXTERNAL = 12  # DLPack's kDLExtDev, torch's PrivateUse1

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class Fault(Exception):
    """What a GPU would answer with an illegal access, or with wrong numbers."""


class Block:
    """What one allocation got. `array` outlives what torch holds, so that work under way can crash nothing."""

    def __init__(self, n_bytes: int, device: int):
        self.n_bytes, self.device = n_bytes, device  # device -1: pinned memory of the host
        size = -(-max(n_bytes, 1) // ALIGNMENT) * ALIGNMENT
        raw = np.full(size + ALIGNMENT, POISON, np.uint8)
        first = -raw.ctypes.data % ALIGNMENT
        self.array = raw[first : first + size]
        self.address = self.array.ctypes.data
        self.used_by: set[Stream] = set() if device < 0 else {current_stream(device)}  # and those that record_stream names
        self.graph = capturing() if device >= 0 else None  # whose own it is

    def given_back(self) -> None:
        """By torch: it goes to others as soon as the streams that use it have done what was put on them up to now."""
        with lock:
            memory.in_use[self.device] -= self.n_bytes
            if self.graph is None:
                self._go([(stream, stream.n_put) for stream in self.used_by])

    def _go(self, waits: list[tuple[Stream, int]]) -> None:
        waits = [(stream, position) for stream, position in waits if stream.n_run < position]
        if waits:
            stream, position = waits[0]
            stream.then.append((position, functools.partial(self._go, waits)))
        else:
            self.array[:] = POISON  # others write it
            memory.forget(self)


class Memory:
    """All blocks, by address."""

    def __init__(self) -> None:
        self._addresses: list[int] = []
        self._blocks: dict[int, Block] = {}
        self.in_use = dict.fromkeys((-1, 0, 1), 0)  # bytes, by device
        self.peak = dict(self.in_use)

    def allocate(self, n_bytes: int, device: int) -> np.ndarray:
        """A view of a new block, which is given back when the view dies."""
        with lock:
            block = Block(n_bytes, device)
            bisect.insort(self._addresses, block.address)
            self._blocks[block.address] = block
            self.in_use[device] += n_bytes
            self.peak[device] = max(self.peak[device], self.in_use[device])
        view = block.array[:]
        weakref.finalize(view, block.given_back).atexit = False
        return view

    def forget(self, block: Block) -> None:
        with lock:
            self._addresses.remove(block.address)
            del self._blocks[block.address]

    def find(self, address: int) -> Block | None:
        """The block in which an address lies."""
        k = bisect.bisect(self._addresses, address) - 1
        block = self._blocks[self._addresses[k]] if k >= 0 else None
        return block if block and address < block.address + len(block.array) else None

    def checked(self, what: str, address: int, n_bytes: int, device: int) -> None:
        """Fault unless all these bytes are a live tensor's on that device."""
        block = self.find(address)
        where = f"{what}: {n_bytes} bytes at {address:#x}"
        if block is None:
            raise Fault(f"{where} are no memory of a simulated GPU, or not any more")
        if block.device != device:
            raise Fault(f"{where} are on {'the host' if block.device < 0 else f'GPU {block.device}'}, the launch is on GPU {device}")
        if address + n_bytes > block.address + max(block.n_bytes, 1):
            raise Fault(f"{where} reach beyond their tensor's {block.n_bytes}")


memory = Memory()


def array_at(address: int, count: int, dtype: np.dtype) -> np.ndarray:
    """What lies there, without a copy; the block's array is kept by the view."""
    block = memory.find(address)
    if block is None:
        raise Fault(f"{count} numbers at {address:#x} are no memory of a simulated GPU")
    offset = address - block.address
    return block.array[offset : offset + count * dtype.itemsize].view(dtype)


def device_bytes(n_bytes: int, device: int) -> Tensor:
    """A uint8 tensor of a simulated GPU."""
    view = memory.allocate(n_bytes, device)
    capsule = view.__dlpack__()
    managed = _pointer(capsule, b"dltensor")
    ctypes.c_int32.from_address(managed + 8).value, ctypes.c_int32.from_address(managed + 12).value = _EXTERNAL, device
    return torch.utils.dlpack.from_dlpack(capsule)


def pinned_bytes(n_bytes: int) -> Tensor:
    """A uint8 tensor of the host that the simulated GPUs read by themselves."""
    return torch.from_numpy(memory.allocate(n_bytes, -1))


def block_of(tensor: Tensor) -> Block | None:
    return memory.find(tensor.untyped_storage().data_ptr())


def alias(tensor: Tensor) -> Tensor:
    """A CPU tensor on the same memory, which does not keep torch from giving it back."""
    block = block_of(tensor)
    if block is None:  # the host's own
        return tensor
    first = (tensor.untyped_storage().data_ptr() - block.address) // tensor.dtype.itemsize + tensor.storage_offset()
    same = torch.from_numpy(block.array).view(tensor.dtype).as_strided(tensor.shape, tensor.stride(), first)
    same = same.conj() if tensor.is_conj() else same
    return torch._neg_view(same) if tensor.is_neg() else same
