"""Numbers on their way to a GPU."""

from collections import deque

import numpy as np
import torch
from torch import Tensor

from ...kernels import devices


class _Pinned:
    """Memory that a GPU reads by itself, as large as the tables; nobody may write it before `read` has come."""

    def __init__(self, host: dict[str, np.ndarray], device: torch.device):
        self.tensors = {name: torch.from_numpy(table).pin_memory() for name, table in host.items()}
        self.arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}
        self.read = devices.module(device).Event()


class Uploads:
    """Tables that a step changes on the host and a launch reads on a GPU, to which goes only what has changed.

    The host never waits: pinned memory is used again once the GPU has read it, and where the GPU lags behind there is more of it.

    Args:
        host: arrays by name, written in place between uploads.
        on_device: the same by name on the GPU, already up to date.
        captured: uploads may be captured in a graph, during which no memory can be pinned.
    """

    def __init__(self, host: dict[str, np.ndarray], on_device: dict[str, Tensor], captured: bool):
        self._host, self._on_device = host, on_device
        self._device = next(iter(on_device.values())).device
        self._sent = {name: table.tobytes() for name, table in host.items()}  # as bytes, which compare faster, NaN too
        self._ring: deque[_Pinned] = deque()  # the one that was read the longest ago first
        self._graphs: list[_Pinned] = []  # what graphs upload at each replay, and must stay as it is
        self._for_a_graph = self._pinned() if captured else None

    def _pinned(self) -> _Pinned:
        return _Pinned(self._host, self._device)

    def send(self, capturing: bool) -> None:
        """Bring the GPU up to date, on its current stream; capturing: in a graph, at each replay.

        Raises:
            RuntimeError: nothing is pinned for a graph.
        """
        now = {name: table.tobytes() for name, table in self._host.items()}
        if capturing:
            if self._for_a_graph is None:
                raise RuntimeError("step() is captured in a second CUDA graph: make a step outside of graphs between the two")
            self._graphs.append(self._for_a_graph)
            self._copy(list(self._host), self._for_a_graph)
            self._for_a_graph, self._sent = None, now
            return
        if self._graphs and self._for_a_graph is None:
            self._for_a_graph = self._pinned()
        # a replay may have sent other numbers
        changed = [name for name in now if self._graphs or now[name] != self._sent[name]]
        if changed:
            pinned = self._ring.popleft() if self._ring and self._ring[0].read.query() else self._pinned()
            self._ring.append(pinned)
            self._copy(changed, pinned)
            pinned.read.record(devices.current_stream(self._device))
            self._sent = now

    def _copy(self, names: list[str], pinned: _Pinned) -> None:
        for name in names:
            pinned.arrays[name][:] = self._host[name]
            self._on_device[name].copy_(pinned.tensors[name], non_blocking=True)
