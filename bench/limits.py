"""What the device can do at most, which steps are held against."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import numba
import numpy as np
import torch


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@numba.njit(nogil=True)
def _stream(a, b, c):
    for i in range(a.size):
        b[i] += a[i]
        c[i] += a[i]


class Limits:
    """A copy of 256 MiB (1 GiB on a GPU); on a CPU also a loop over as much as a plain step of two tensors of 4096x4096 moves.

    The loop reads three arrays, writes two and does hardly any arithmetic: an update could not be faster. On a GPU the copy is as fast.
    """

    def __init__(self, device: str):
        self._device = device
        source = torch.ones(2**26 if device == "cpu" else 2**28, device=device)
        target = torch.empty_like(source)
        self.runs: dict[str, tuple[int, Callable[[], object]]] = {"copy": (2 * source.nbytes, lambda: target.copy_(source))}
        if device == "cpu":
            n_threads = torch.get_num_threads()
            n = 2 * 4096**2 // n_threads * n_threads
            arrays = [np.ones(n, np.float32) for _ in range(3)]
            first, *rest = zip(*(np.split(array, n_threads) for array in arrays), strict=True)
            pool = ThreadPoolExecutor(n_threads)

            def stream():
                others = [pool.submit(_stream, *part) for part in rest]
                _stream(*first)
                wait(others)

            self.runs["stream"] = 20 * n, stream

    def rates(self, rounds: int = 3) -> dict[str, float]:
        """Name -> bytes a second, the best of some rounds."""
        best = {}
        for name, (n_bytes, run) in self.runs.items():
            seconds = []
            for _ in range(rounds + 1):  # the first one warms up
                begin = time.perf_counter()
                run()
                synchronize(self._device)
                seconds.append(time.perf_counter() - begin)
            best[name] = n_bytes / min(seconds[1:])
        return best
