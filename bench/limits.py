"""What the device can do at most, which steps are held against."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np
import torch

from fusedrms.engine.buckets import chunks
from fusedrms.kernels import devices
from fusedrms.kernels.cpu.step import CHUNK, MIN_WORK
from fusedrms.kernels.cpu.threads import Threads, compile_loop


class Streamed(NamedTuple):
    """What Threads share out."""

    numels: np.ndarray
    chunk_tensor: np.ndarray
    chunk_start: np.ndarray
    a: np.ndarray
    b: np.ndarray


@numba.njit(nogil=True)
def _stream(variant, numels, chunk_tensor, chunk_start, a, b, c, chunk, first, last):
    x, y, z = a[first * chunk : last * chunk], b[first * chunk : last * chunk], c[first * chunk : last * chunk]
    for i in range(x.size):
        y[i] += x[i]
        z[i] += x[i]


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
            n = 2 * 4096**2
            a, b, c = (np.ones(n, np.float32) for _ in range(3))
            numels = np.array([n])
            tables = Streamed(numels, *chunks(numels, CHUNK), a, b)
            types = [numba.typeof(array) for array in (*tables, c)]
            run = Threads(compile_loop(_stream, numba.types.none, *types)._replace(variant=None), tables, CHUNK, MIN_WORK)
            self.runs["stream"] = 20 * n, lambda: run(c)

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
