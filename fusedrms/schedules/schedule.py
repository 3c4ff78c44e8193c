"""What all schedules have in common."""

import math
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ..engine.options.checks import plain


class Schedule(LRScheduler):
    """A learning rate that depends on the epoch and on the first learning rate of each parameter group."""

    def rate(self, base: float, epoch: int) -> float:
        """The learning rate at an epoch.

        Args:
            base: Learning rate that the parameter group had when the schedule was made.
            epoch: How often `step()` was called.
        """
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        return [self.rate(float(base), self.last_epoch) for base in self.base_lrs]


def number(name: str, value: Any, least: float = 0.0, above: bool = False) -> float:
    value = plain(value)
    valid = isinstance(value, int | float) and math.isfinite(value) and (value > least if above else value >= least)
    if isinstance(value, bool) or not valid:
        raise ValueError(f"{name}={value!r} is not supported: it must be a finite number {'>' if above else '>='} {least:g}")
    return value
