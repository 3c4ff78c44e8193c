"""What rules draw, and what makes a method one."""

import functools
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.stateful import rule
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from cases import BF16, F32, F64

SHAPES = [(), (0,), (1,), (7,), (5, 3), (130,)]
OPTIONS = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize")  # torch's
STATES = ("square_avg", "grad_avg", "momentum_buffer")
CHOICES = dict(
    lr=[1e-2, 0.1, 0.0],
    alpha=[0.5, 0.9, 0.99],
    eps=[1e-3, 1e-2, 0.1],
    weight_decay=[0.0, 0.1],
    momentum=[0.0, 0.5, 0.9],
    centered=[False, True],
    maximize=[False, True],
)

which = st.integers(0, 31)  # of those there are, counted round
layouts = st.sampled_from(["dense", "reversed", "offset", "gaps"])
options = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHOICES.items()})
kinds = st.tuples(st.sampled_from(SHAPES), st.sampled_from([F32, F32, BF16, F64]))


def laid_out(values: Tensor, layout: str) -> Tensor:
    """The same values in new memory."""
    values = values.detach()
    if layout == "reversed":
        order = tuple(reversed(range(values.dim())))
        return values.permute(order).clone(memory_format=torch.contiguous_format).permute(order)
    if layout == "offset":
        return torch.empty(values.numel() + 1, dtype=values.dtype)[1:].view(values.shape).copy_(values)
    if layout == "gaps":
        return torch.empty(*values.shape, 2, dtype=values.dtype)[..., 0].copy_(values)
    return values.clone(memory_format=torch.contiguous_format)


def change(**draws):
    """A rule: what a user does, then a few steps. What the user has let go must be free before them."""

    def decorate(function):
        @functools.wraps(function)
        def run(self, steps, **drawn):
            self.log(function.__name__, drawn, steps)
            before = {storage._cdata: StorageWeakRef(storage) for storage in self.storages()}
            with torch.no_grad():
                function(self, **drawn)
            self.check_freed(before)
            for _ in range(steps):
                self.step()

        del run.__wrapped__  # hypothesis reads the signature
        return rule(steps=st.integers(0, 2), **draws)(run)

    return decorate


def same(a: Any, b: Any) -> bool:
    """Whether two values of a state are equal; of two dtypes, as float32 holds them: a state takes its parameter's with time."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(*(a, b) if a.dtype == b.dtype else (a.float(), b.float()))
    return float(a) == float(b)


def copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
