"""Steps that are left out since the norm of their gradients is a spike beside those of the last accepted steps."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels.devices import current_stream, is_gpu, keep
from ...kernels.tables import ABOVE, FIRST_NORM, SKIP
from ..options.skip_above import SkipAbove
from .chunks import on_device


class Spikes:
    """The norms of the last accepted steps, the oldest first.

    Those that are not there yet are infinite, and count as the largest: the limit is infinite until half of the window is there.

    Args:
        option: factor and window.
        accepted: norms to begin with; the last ones count.
    """

    def __init__(self, option: SkipAbove, accepted: Sequence[float] = ()):
        self.option = option
        last = list(accepted)[-option.window :]
        self._norms: Any = np.array([math.inf] * (option.window - len(last)) + last)  # as the driver of that device reads it
        self._device: torch.device | None = None  # of no step yet
        self._on: dict[torch.device, tuple[Any, Any]] = {}  # norms, and the stream that they were made on
        self._middle = (option.window - 1) // 2  # of two the lower one

    def accepted(self) -> list[float]:
        """The norms that are there; waits for the device."""
        return [norm for norm in self._norms.tolist() if norm < math.inf]

    def look(self, scalars: np.ndarray | Tensor, device: torch.device) -> None:
        """Leave the step out if its norm is a spike; else remember the norm, unless the step is left out already, or it is 0 or not finite.

        Zeros, before a model learns say, would make every other norm a spike.

        Args:
            scalars: of the step on this device, with the norm of all gradients; SKIP is written.
        """
        if device != self._device:
            self._move(device)
        if isinstance(scalars, np.ndarray):
            self._look_on_host(scalars)
        else:
            if stream := self._on[device][1]:
                keep([self._norms], stream)
            self._look_on_device(scalars)

    def _move(self, device: torch.device) -> None:
        """To where the norm is now: where it was before to the same memory, which graphs may know."""
        norms = np.array(self._norms.tolist())
        if device in self._on:
            self._on[device][0][:] = torch.from_numpy(norms)
        else:
            self._on[device] = on_device(norms, device), current_stream(device) if is_gpu(device) else None
        self._norms, self._device = self._on[device][0], device

    def _look_on_host(self, scalars: np.ndarray) -> None:
        norms, norm = self._norms, float(scalars[FIRST_NORM])
        if scalars[SKIP] or not 0 < norm < math.inf:
            return
        if norm > self.option.factor * float(np.partition(norms, self._middle)[self._middle]):
            scalars[SKIP] = ABOVE
        else:
            norms[:-1] = norms[1:]
            norms[-1] = norm

    def _look_on_device(self, scalars: Tensor) -> None:
        """The same, without a wait: of a step that is neither, the norm is NaN, which no comparison holds for."""
        norms, skip, norm = self._norms, scalars[SKIP], scalars[FIRST_NORM]
        norm = norm.masked_fill(~((skip == 0) & (norm > 0) & (norm < math.inf)), math.nan)
        limit = self.option.factor * norms.sort().values[self._middle]
        skip.masked_fill_(norm > limit, ABOVE)
        norms.copy_(torch.where(norm <= limit, torch.cat((norms[1:], norm.reshape(1))), norms))
