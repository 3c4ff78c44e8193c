"""The device that figures are measured on, how much of it, and its clock."""

import functools
import gc
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from bench.common.machine import free_bytes
from bench.timing.algorithms import ALGORITHMS
from bench.timing.workloads import Shapes, parameters
from fusedrms.kernels import devices

Step = Callable[[], object]
LEAST_ROUNDS, MOST_SECONDS = 5, 8.0  # of a measurement: no more rounds after so long
MOST_BUSY = 100  # copies: the host waits where more launches are queued than about a thousand


class Unmeasured(Exception):
    """Why a figure cannot be had here, though nothing is wrong."""


class Size(NamedTuple):
    """How much is measured."""

    smaller: int  # every dimension, and numbers of tensors
    rounds: int
    seconds: float  # of warming up
    copied: int  # float32
    gpt: dict[str, int]
    tokens: tuple[int, int]


SIZES = {
    False: Size(1, 51, 0.5, 2**28, dict(layers=28, width=1024, context=1024, heads=16), (8, 1024)),  # 354 million parameters
    True: Size(100, 3, 0.0, 2**16, dict(layers=1, width=16, context=8, heads=2), (2, 8)),
}


class Scene:
    """The device, how much is measured on it, and a copy to measure it by."""

    def __init__(self, device: torch.device, quick: bool):
        self.device, self.size = device, SIZES[quick]
        self._source = torch.ones(self.size.copied, device=device)
        self._target = torch.empty_like(self._source)
        self.copied_bytes = 2 * self._source.nbytes
        self._busy_seconds = math.inf if devices.is_gpu(device) else 0.0  # of a copy; 0: the host does the work itself
        if self._busy_seconds:
            self._busy_seconds = self.times({"copy": self.copy})["copy"]

    def copy(self) -> None:
        self._target.copy_(self._source)

    def smaller(self, shapes: Shapes) -> Shapes:
        return [tuple(-(-n // self.size.smaller) for n in shape) for shape in shapes]

    def params(self, shapes: Shapes, n_held: int = 12) -> list[torch.nn.Parameter]:
        """float32 with gradients; n_held: bytes for each that a step needs, for which memory must do."""
        needed, free = n_held * numel(shapes), free_bytes(self.device)
        if needed > free:
            raise Unmeasured(f"needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free")
        return parameters(shapes, self.device)

    def _busy(self, run: Step, repeats: int) -> int:
        """Copies that take the device longer than the host takes to launch all repeats; runs it once."""
        if not self._busy_seconds:
            run()
            return 0
        devices.synchronize(self.device)
        start = time.perf_counter()
        run()
        host = time.perf_counter() - start
        devices.synchronize(self.device)
        return min(MOST_BUSY, 1 + int(1.5 * repeats * host / self._busy_seconds))

    def times(self, runs: dict[str, Step], repeats: int = 1) -> dict[str, float]:
        """Name -> median seconds of a run, all in turns; repeats: of each, one right after the other."""

        def one(run: Step, busy: int) -> float:
            for _ in range(busy):
                self.copy()
            return devices.seconds(self.device, lambda: [run() for _ in range(repeats)]) / repeats

        start = time.perf_counter()
        busy = {name: self._busy(run, repeats) for name, run in runs.items()}
        while time.perf_counter() < start + self.size.seconds:
            busy = {name: self._busy(run, repeats) for name, run in runs.items()}
        return in_turns({name: functools.partial(one, run, busy[name]) for name, run in runs.items()}, self.size.rounds)

    def rate(self, times: dict[str, float]) -> float:
        """Bytes a second of the copy."""
        return self.copied_bytes / times["copy"]

    def ready(self, algorithm: str, name: str, shapes: Shapes) -> Step:
        """A step that has run before."""
        chosen = ALGORITHMS[algorithm][name]
        step = chosen.make(self.params(shapes, chosen.n_held))
        for _ in range(2):
            step()
        devices.synchronize(self.device)
        return step

    def gpu(self) -> Any:
        """torch's module for it."""
        if not devices.is_gpu(self.device):
            raise Unmeasured("no GPU")
        return devices.module(self.device)

    def tidy(self) -> None:
        """Give back the memory of what was measured before."""
        gc.collect()  # optimizers hold themselves
        devices.empty_cache(self.device)


def in_turns(clocks: dict[str, Callable[[], float]], most: int) -> dict[str, float]:
    """The median of what each clock says, in rounds."""
    found: dict[str, list[float]] = {name: [] for name in clocks}
    start = time.perf_counter()
    for n in range(most):
        if n >= LEAST_ROUNDS and time.perf_counter() > start + MOST_SECONDS:
            break
        for name, clock in clocks.items():
            found[name].append(clock())
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def numel(shapes: Shapes) -> int:
    return sum(map(math.prod, shapes))
