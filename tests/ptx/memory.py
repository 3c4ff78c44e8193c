"""The memory of a GPU, which checks every access."""

import ctypes
from typing import NamedTuple

import numpy as np

WARP = 32


class Fault(Exception):
    """What a GPU would trap on, or leave undefined, or what the machine does not know."""


class Bytes:
    """Memory that knows which of its bytes were ever written, and who touched them since when.

    Accesses of two warps are in order if they are of one block with a barrier between them, which begins a new epoch of it.
    """

    def __init__(self, size: int, threads: int, one_writer: bool):
        self.threads = threads  # of a block
        self.one_writer = one_writer  # no byte may be written by two threads, whatever is between them
        self.data, self.written = np.zeros(size, np.uint8), np.zeros(size, bool)
        self.writer, self.writer_epoch = np.full(size, -1), np.zeros(size, np.int64)
        # -1: nobody; -2: several blocks, or several warps in the last epoch
        self.reader_block, self.reader_warp, self.reader_epoch = np.full(size, -1), np.full(size, -1), np.zeros(size, np.int64)

    def read(self, at: np.ndarray, thread: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        """at: [threads, bytes]; thread and epoch [threads, 1]."""
        block, warp, writer = thread // self.threads, thread // WARP, self.writer[at]
        _check("read of memory that was never written", self.written[at], thread)
        ordered = (writer // self.threads == block) & (self.writer_epoch[at] < epoch)
        _check("read races with a write", (writer < 0) | (writer // WARP == warp) | ordered, thread)
        values, anew = self.data[at], self.reader_epoch[at] < epoch
        for last, who, forget in ((self.reader_block, block, False), (self.reader_warp, warp, anew)):
            alone = forget | (last[at] == -1) | (last[at] == who)
            last[at] = who
            last[at[~alone | (last[at] != who)]] = -2
        self.reader_epoch[at] = epoch
        return values

    def write(self, at: np.ndarray, values: np.ndarray, thread: np.ndarray, epoch: np.ndarray) -> None:
        block, warp, writer = thread // self.threads, thread // WARP, self.writer[at]
        reader = self.reader_block[at]
        ordered = (self.reader_warp[at] == warp) | (self.reader_epoch[at] < epoch)
        _check("write races with a read", (reader == -1) | ((reader == block) & ordered), thread)
        # the same value harms nobody
        fine = (writer == thread) if self.one_writer else (self.writer_epoch[at] < epoch) | (self.data[at] == values)
        _check("two threads write the same bytes", (writer < 0) | (writer == thread) | fine, thread)
        self.data[at], self.writer[at], self.writer_epoch[at], self.written[at] = values, thread, epoch, True
        fine = (self.writer[at] == thread) if self.one_writer else (self.data[at] == values)  # of several in this instruction
        _check("two threads write the same bytes", fine, thread)


def _check(what: str, fine: np.ndarray, thread: np.ndarray) -> None:
    if not fine.all():
        raise Fault(f"{what}: thread {thread[~fine.all(axis=1)][0, 0]}")


class Place(NamedTuple):
    """An array in global memory."""

    address: int
    array: np.ndarray
    written: bool  # whether reading it is no Fault


class Memory:
    """Global memory: arrays at addresses, beside which there is nothing."""

    def __init__(self):
        self._places: dict[str, Place] = {}

    def add(self, name: str, array: np.ndarray, beyond: int = 0, written: bool = True) -> int:
        """The address of a copy of an array, far from all others, `beyond` a multiple of 2**32."""
        address = 0x7F00_0000_0000 + 0x1_0000_0000 * len(self._places) + beyond
        self._places[name] = Place(address, np.ascontiguousarray(array), written)
        return address

    def add_real(self, name: str, address: int, size: int) -> None:
        """So many bytes of this process, which write_back() changes; those of another name may be the same."""
        if size and all((place.address, place.array.nbytes) != (address, size) for place in self._places.values()):
            array = np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)
            self._places[name] = Place(address, array, True)

    def begin(self, threads: int) -> Bytes:
        """For a launch with so many threads a block."""
        order = sorted(self._places, key=lambda name: self._places[name].address)
        self._order = {name: k for k, name in enumerate(order)}
        self._start = np.array([self._places[name].address for name in order])
        self._size = np.array([self._places[name].array.nbytes for name in order])
        if (self._start[:-1] + self._size[:-1] > self._start[1:]).any():
            raise ValueError("arrays overlap")
        self._first = np.cumsum(self._size) - self._size
        self._bytes = Bytes(int(self._size.sum()), threads, one_writer=True)
        for name in order:
            _, array, written = self._places[name]
            self._bytes.data[self._slice(name)] = array.reshape(-1).view(np.uint8)
            self._bytes.written[self._slice(name)] = written
        return self._bytes

    def _slice(self, name: str) -> slice:
        first = self._first[self._order[name]]
        return slice(first, first + self._places[name].array.nbytes)

    def get(self, name: str) -> np.ndarray:
        """What an array has become, in a copy."""
        array = self._places[name].array
        return self._bytes.data[self._slice(name)].copy().view(array.dtype).reshape(array.shape)

    def stored(self, name: str) -> np.ndarray:
        """Which bytes of an array the launch has written."""
        return self._bytes.writer[self._slice(name)] >= 0

    def write_back(self) -> None:
        """Into the arrays that were added."""
        for name, place in self._places.items():
            if self.stored(name).any():
                place.array[...] = self.get(name)

    def positions(self, address: np.ndarray, size: int) -> np.ndarray:
        """Of the bytes of each access in Bytes, [threads, size]; one that is not inside of a single array is a Fault."""
        k = np.maximum(np.searchsorted(self._start, address, side="right") - 1, 0)
        within = address - self._start[k]
        bad = (within < 0) | (within + size > self._size[k])
        if bad.any():
            n = np.flatnonzero(bad)[0]
            name = next(name for name, number in self._order.items() if number == k[n])
            near = f"{within[n]} bytes from the start of {name}, which has {self._size[k[n]]}"
            raise Fault(f"access of {size} bytes out of bounds at {address[n]:#x}: {near}")
        return (self._first[k] + within)[:, None] + np.arange(size)
