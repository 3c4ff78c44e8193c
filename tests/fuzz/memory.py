"""What users do to the memory of tensors."""

import gc
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from cases import BF16, F32, F64

from .draws import SHAPES, STATES, change, laid_out, layouts, which
from .steps import Steps


def _swap(param: Tensor, data: Tensor) -> None:
    other = Parameter(data, param.requires_grad)
    other.grad = param.grad
    torch.utils.swap_tensors(param, other)


def _data(tensor: Tensor, data: Tensor) -> None:
    tensor.data = data


def _grow(storage: torch.UntypedStorage) -> None:
    if storage.resizable() and not storage.is_shared():
        storage.resize_(storage.nbytes() + 4096)


# what gives a tensor other memory, or looks as if it did, and leaves its values as they are
MOVES: dict[str, Callable[[Tensor], Any]] = {
    "data = clone": lambda tensor: _data(tensor, tensor.data.clone()),
    "data = the same memory": lambda tensor: _data(tensor, tensor.data.view_as(tensor)),
    "data reversed": lambda tensor: _data(tensor, laid_out(tensor, "reversed")),
    "data at an offset": lambda tensor: _data(tensor, laid_out(tensor, "offset")),
    "data with gaps": lambda tensor: _data(tensor, laid_out(tensor, "gaps")),
    "set_": lambda tensor: tensor.set_(laid_out(tensor, "dense")),
    "storage grows": lambda tensor: _grow(tensor.untyped_storage()),
    "share_memory_": lambda tensor: tensor.share_memory_(),
    "sent to a process": ForkingPickler.dumps,
}
# torch swaps no tensor that C++ holds too, as it does a gradient
SWAPS: dict[str, Callable[[Tensor], Any]] = {
    "swap_tensors": lambda param: _swap(param, param.detach().clone()),
    "swap_tensors, same memory": lambda param: _swap(param, param.data),
}
moves, swaps = st.sampled_from(sorted(MOVES)), st.sampled_from(sorted(SWAPS))


class Memory(Steps):
    """Rules about memory."""

    @change(n=which, how=moves)
    def move_param(self, n, how):
        with self.unchanged():
            MOVES[how](self.param(n))

    @change(n=which, how=swaps)
    def swap_same_values(self, n, how):
        with self.unchanged():
            SWAPS[how](self.param(n))

    @change(n=which, how=moves)
    def move_grad(self, n, how):
        grad = self.param(n).grad
        if grad is not None and 0 not in grad.stride():
            with self.unchanged():
                MOVES[how](grad)

    @change(n=which, how=moves)
    def move_state(self, n, how):
        if found := self.a_state(n):
            with self.unchanged():
                MOVES[how](found[0][found[1]])

    @change(n=which, how=moves)
    def move_counter(self, n, how):
        if found := self.a_state(n, counters=True):
            with self.unchanged():
                MOVES[how](found[0][found[1]])

    @change(how=moves)
    def move_states(self, how):
        """All, counters too, as code does that offloads them."""
        with self.unchanged():
            for state in self.optimizer.state.values():
                for value in state.values():
                    if isinstance(value, Tensor):
                        MOVES[how](value)

    @change(n=which, layout=layouts, keep=st.booleans())
    def new_data(self, n, layout, keep):
        param = self.param(n)
        self.let_go(param.data, keep)
        param.data = laid_out(self.values(param.shape, param.dtype), layout)

    @change(n=which)
    def write_param(self, n):
        self.param(n).copy_(self.values(self.param(n).shape, self.param(n).dtype))

    @change(n=which, keep=st.booleans())
    def swap_param(self, n, keep):
        param, other = self.param(n), Parameter(self.values(self.param(n).shape, self.param(n).dtype), self.param(n).requires_grad)
        other.grad = self.values(param.shape, param.dtype)
        torch.utils.swap_tensors(param, other)
        self.let_go(other.detach(), keep)  # not its gradient

    @change(n=which, dtype=st.sampled_from([F32, BF16, F64]))
    def change_dtype(self, n, dtype):
        param = self.param(n)
        param.grad = None
        param.data = param.data.to(dtype)
        param.grad = self.values(param.shape, dtype)

    @change(n=which, shape=st.sampled_from(SHAPES))
    def reshape(self, n, shape):
        """States of another shape are an error until they are gone."""
        param = self.param(n)
        has_state = any(key in self.state(param) for key in STATES)
        if shape != tuple(param.shape):
            param.grad = None
            param.data = self.values(shape, param.dtype)
            param.grad = self.values(shape, param.dtype)
            if has_state and any(param is each for each in self.listed()):
                self.refuse()
            self.optimizer.state.pop(param, None)

    @change()
    def collect(self):
        gc.collect()
