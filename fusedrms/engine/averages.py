"""The averages of parameters that steps make, and parameters that hold them for a while."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .options.groups import named_parameters
from .sharded import local, reshard
from .state.precision import PARAM_EMA

if TYPE_CHECKING:
    from .optimizer import FusedOptimizer


def averages(optimizer: "FusedOptimizer") -> Iterator[tuple[str, Tensor, Tensor]]:
    """As FusedOptimizer.averages()."""
    if all(group["ema_decay"] is None for group in optimizer.param_groups):
        raise RuntimeError("no parameter group has an ema_decay, so there are no averages: make the optimizer with ema_decay=0.9999, say")
    for each in named_parameters(optimizer.param_groups):
        values = optimizer.state.get(each.param, {})
        if PARAM_EMA in values and optimizer.param_groups[each.group]["ema_decay"] is not None:
            yield each.name, each.param, values[PARAM_EMA]


@torch.no_grad()
def _put(values: list[tuple[Tensor, Tensor]]) -> None:
    """Into each parameter, in place, its value."""
    for param, value in values:
        local(param).copy_(local(value))
    reshard(param for param, _ in values)


@contextmanager
def averaged(optimizer: "FusedOptimizer") -> Generator[None]:
    """As FusedOptimizer.averaged()."""
    run = optimizer._run  # pyright: ignore[reportPrivateUsage]
    run.check_not_averaged("averaged()")
    found = [(param, average) for _, param, average in averages(optimizer)]
    own = [(param, local(param).detach().clone()) for param, _ in found]
    run.averaged = True
    try:
        _put(found)
        yield
    finally:
        _put(own)
        run.averaged = False
