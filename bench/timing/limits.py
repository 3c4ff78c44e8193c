"""What the device can do at most, which steps are held against."""

import time
from collections.abc import Callable

import numba
import numpy as np
import torch

from fusedrms.kernels import devices


@numba.njit(parallel=True)
def _stream(a, b, c):
    for i in numba.prange(a.size):
        b[i] += a[i]
        c[i] += a[i]


class Limits:
    """A copy of 256 MiB (1 GiB on a GPU); on a CPU also a loop over as much as a plain step of two tensors of 4096x4096 moves.

    The loop reads three arrays, writes two and does hardly any arithmetic: an update could not be faster. On a GPU the copy is as fast.
    """

    def __init__(self, device: torch.device):
        self._device = device
        source = torch.ones(2**28 if devices.is_gpu(device) else 2**26, device=device)
        target = torch.empty_like(source)
        self.runs: dict[str, tuple[int, Callable[[], object]]] = {"copy": (2 * source.nbytes, lambda: target.copy_(source))}
        if not devices.is_gpu(device):
            arrays = [np.ones(2 * 4096**2, np.float32) for _ in range(3)]
            self.runs["stream"] = 5 * arrays[0].nbytes, lambda: _stream(*arrays)

    def rates(self, rounds: int = 3) -> dict[str, float]:
        """Name -> bytes a second, the best of some rounds."""
        best = {}
        for name, (n_bytes, run) in self.runs.items():
            seconds = []
            for _ in range(rounds + 1):  # the first one warms up
                begin = time.perf_counter()
                run()
                devices.synchronize(self._device)
                seconds.append(time.perf_counter() - begin)
            best[name] = n_bytes / min(seconds[1:])
        return best
