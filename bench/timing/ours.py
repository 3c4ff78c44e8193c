"""Our own step, which every other is held against in the same rounds."""

import gc
import math

import torch

from bench.common.machine import free_bytes
from bench.common.store import OURS
from bench.timing.algorithms import ALGORITHMS
from bench.timing.measure import Step
from bench.timing.workloads import WORKLOADS, parameters
from fusedrms.kernels import devices


class Ours:
    """The step of the case at hand, kept from one of its implementations to the next, while there is memory for both."""

    def __init__(self, device: torch.device):
        self._device, self._step = device, None
        self._case: tuple[str, str] | None = None

    def beside(self, workload: str, algorithm: str, needed: int) -> Step | None:
        """A step that has run before; None if memory does not do for it and so many bytes."""
        if self._case != (workload, algorithm):
            self._case = workload, algorithm
            self._free()
        _, shapes = WORKLOADS[workload]
        if self._step is None:
            ours = ALGORITHMS[algorithm][OURS]
            if needed + ours.n_held * sum(map(math.prod, shapes)) > free_bytes(self._device):
                return None
            self._step = ours.make(parameters(shapes, self._device))
            for _ in range(2):
                self._step()
        elif needed > free_bytes(self._device):
            self._free()
        return self._step

    def _free(self) -> None:
        self._step = None
        gc.collect()  # optimizers hold themselves
        devices.empty_cache(self._device)
