"""Addresses of parameters and gradients, read only if nothing else about them has changed.

A stale address is memory corruption. So before every step device, dtype, shape and strides of each tensor are compared, and
whether parameters and states are still those that the tables were made for. In Python this is a microsecond a parameter; here
a compiled loop asks CPython's C API, and DLPack's C interface (torch 2.10 on), which gives all facts of a tensor in one call.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import Parameter

from .c_api import FUNCTIONS, cached_njit, call, peek, prefetch

_GRAD, _PART = "grad", "_local_tensor"  # names of attributes; the second is that of DTensors, which is asked for what is here
AHEAD = 8  # tensors


class _Tensors(NamedTuple):
    """Facts of tensors as DLPack tells them: of each active parameter and its gradient in turn, then of the states."""

    object: np.ndarray  # int64 [n]: addresses of the Python objects
    param: np.ndarray  # int64 [2 n_active]: of the parameter that it is, or whose gradient
    sharded: np.ndarray  # bool [2 n_active]: it is what is here of a DTensor
    address: np.ndarray  # int64 [n]: of the data
    filled: np.ndarray  # bool [n]: there are elements, for which there must be memory
    shape: np.ndarray  # int64 [n]: where its shape lay when last seen, in the midst of what torch keeps of it
    kind: np.ndarray  # int64 [n, 2]: device; ndim and dtype
    dims_start: np.ndarray  # int64 [n]: where in dims
    dims: np.ndarray  # int64: shape, then strides, of each
    moved: np.ndarray  # bool [1]: an address has changed
    first_state: int  # how many of them are no states


class _Objects(NamedTuple):
    """Addresses of Python objects, all int64."""

    idle: np.ndarray  # parameters without a gradient
    listed: np.ndarray  # what the parameter groups' lists hold, one after the other
    values: np.ndarray  # values of the optimizer's state, in its order
    holders: np.ndarray  # of the states and counters: the dict,
    keys: np.ndarray  # the name,
    held: np.ndarray  # and the tensor


@cached_njit()
def _same(functions, names, none, sizes, objects, tensors, lists, state, record):
    """Everything as recorded, or record the facts of the tensors; False leaves a Python error to be cleared."""
    for k in range(objects.idle.size):
        grad = call(functions.get_attribute, (objects.idle[k], names[0]))
        if grad == 0:
            return False
        call(functions.release, (grad,))
        if grad != none:
            return False
    position = 0
    for k in range(lists.size):
        for i in range(sizes[k]):
            if call(functions.list_item, (lists[k], i)) != objects.listed[position]:
                return False
            position += 1
    entry = np.zeros(3, np.int64)  # PyDict_Next's position, key, value
    at = entry.ctypes.data
    for value in objects.values:
        if not call(functions.dict_next, (state, at, at + 8, at + 16)) & 0xFFFFFFFF or entry[2] != value:
            return False
    for k in range(objects.held.size):
        if call(functions.dict_item, (objects.holders[k], objects.keys[k])) != objects.held[k]:
            return False

    view = np.empty(6, np.int64)  # DLTensor: data, device, ndim and dtype, shape *, strides *, byte offset
    for k in range(tensors.object.size):
        ahead = min(k + AHEAD, tensors.object.size - 1)  # 10,000 tensors fit into no fast cache
        prefetch(tensors.object[ahead])
        for line in range(-64, 128, 64):
            prefetch(tensors.shape[ahead] + line)
        if k < tensors.first_state and k % 2:  # a gradient, asked for while its parameter is in the cache
            grad = call(functions.get_attribute, (tensors.param[k], names[0]))
            if grad == 0:
                return False
            call(functions.release, (grad,))  # the parameter still holds it
            tensors.object[k] = grad
        if k < tensors.first_state and tensors.sharded[k]:
            part = call(functions.get_attribute, (tensors.object[k] if k % 2 else tensors.param[k], names[1]))
            if part == 0:
                return False
            call(functions.release, (part,))
            tensors.object[k] = part
        if call(functions.exchange, (tensors.object[k], view.ctypes.data)) & 0xFFFFFFFF:  # not a tensor, or a sparse one
            return False
        address = view[0] + view[5]
        if address == 0 and tensors.filled[k]:  # what is none of torch's own tensors has no memory
            return False
        if address != tensors.address[k]:
            if k >= tensors.first_state and not record:  # a state that was given other memory through .data
                return False
            tensors.address[k] = address
            tensors.moved[0] = True
        tensors.shape[k] = view[3]
        if record:
            tensors.kind[k, 0], tensors.kind[k, 1] = view[1], view[2]
        elif view[1] != tensors.kind[k, 0] or view[2] != tensors.kind[k, 1]:
            return False
        ndim, start = view[2] & 0xFFFFFFFF, tensors.dims_start[k]
        for d in range(2 * ndim):
            dim = peek(view[3] + 8 * d) if d < ndim else peek(view[4] + 8 * (d - ndim))
            if record:
                tensors.dims[start + d] = dim
            elif dim != tensors.dims[start + d]:
                return False
    return True


@cached_njit()
def _scan(functions, names, none, sizes, objects, tensors, lists, state, record):
    same = _same(functions, names, none, sizes, objects, tensors, lists, state, record)
    if not same:
        call(functions.clear_error, ())
    return same


def _ids(values) -> np.ndarray:
    return np.fromiter(map(id, values), np.int64)


def _facts(tensor):
    if tensor is None or tensor.layout is not torch.strided:
        return None
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def _second_owners(tensors: list[Tensor]) -> list[Tensor]:
    """For each tensor one without memory of its own, whose grad it is.

    A tensor that only Python owns is handed over, and back, whenever C++ looks at it: 40 ns, twice what else a look takes.
    """
    element = {kind: torch.empty((), dtype=kind[0], device=kind[1]) for kind in {(tensor.dtype, tensor.device) for tensor in tensors}}
    owners = [element[tensor.dtype, tensor.device].expand(tensor.shape) for tensor in tensors]
    for owner, tensor in zip(owners, tensors, strict=True):
        owner.grad = tensor
    return owners


class Versions:
    """The version counters by which autograd knows that parameters have changed; bumping them costs a quarter of what it else would."""

    def __init__(self, params: list[Tensor]):
        # a detached tensor shares the counter; it gets other memory, lest it keep the parameter's alive
        self._counters = [param.detach() if type(param) in (Tensor, Parameter) else param for param in params]
        for param, counter in zip(params, self._counters, strict=True):
            if counter is not param:
                counter.data = torch.empty(0, dtype=param.dtype, device=param.device)
        self._owners = _second_owners([counter for counter in self._counters if type(counter) is Tensor])

    def increment(self) -> None:
        increment_version(self._counters)


class Snapshot:
    """What an optimizer's parameters, gradients and states looked like.

    Args:
        active: parameters that have a gradient.
        idle: parameters that have none.
        lists: the lists of parameters, one a parameter group.
        state: the optimizer's.
        states: the tensors in it that a step writes, as (a value of `state`, the name in it).
        counters: what else in it must not be replaced, likewise.
        local: of a parameter, gradient or state what is here of it: itself, unless it is a DTensor.

    Attributes:
        address: int64 [2, n_active], of parameters and of gradients; written by `same`.
    """

    def __init__(
        self,
        active: list[Tensor],
        idle: list[Tensor],
        lists: list[list],
        state: dict,
        states: list[tuple[dict, str]],
        counters: list[tuple[dict, str]],
        local: Callable[[Tensor], Tensor],
    ):
        held = [*states, *counters]
        self._kept = active, idle, [list(params) for params in lists], list(state.values()), held  # so that ids stay theirs
        self._held = [holder[key] for holder, key in held]
        self._local = local
        self._states = [local(tensor) for tensor in self._held[: len(states)]]
        self._owners = _second_owners(self._states)
        tensors = self._all_tensors()
        addresses = np.zeros(len(tensors), np.int64)
        self.address = addresses[: 2 * len(active)].reshape(-1, 2).T
        self._moved = np.ones(1, np.bool_)
        self._filled = np.array([tensor.numel() > 0 for tensor in tensors], np.bool_)
        if not FUNCTIONS.exchange:
            self._facts = list(map(_facts, tensors))
            self._state_address = np.array([tensor.data_ptr() for tensor in self._states], np.int64)
            return
        n_dims = np.array([2 * tensor.dim() for tensor in tensors], np.int64)
        facts = _Tensors(
            _ids(tensors),
            np.repeat(_ids(active), 2),
            np.repeat(np.array([local(param) is not param for param in active], np.bool_), 2),
            addresses,
            self._filled,
            np.zeros(len(tensors), np.int64),
            np.zeros((len(tensors), 2), np.int64),
            np.cumsum(n_dims) - n_dims,
            np.zeros(n_dims.sum(), np.int64),
            self._moved,
            2 * len(active),
        )
        objects = _Objects(
            _ids(idle),
            _ids(param for params in lists for param in params),
            _ids(state.values()),
            _ids(holder for holder, _ in held),
            _ids(key for _, key in held),
            _ids(self._held),
        )
        fixed = FUNCTIONS, (id(_GRAD), id(_PART)), id(None), np.array(list(map(len, lists)), np.int64), objects, facts
        # compile() returns the machine code itself: a call through Numba's dispatcher costs as much as 50 parameters
        entry = _scan.compile(tuple(map(numba.typeof, (*fixed, _ids(lists), id(state), True))))
        self._scan = functools.partial(entry, *fixed)
        self._scan(_ids(lists), id(state), True)

    def _all_tensors(self) -> list[Tensor]:
        active = self._kept[0]
        return [*(self._local(tensor) for param in active for tensor in (param, param.grad)), *self._states]

    def same(self, lists: list[list], state: dict) -> bool:
        """Whether all is as it was, and has memory of its own; reads the addresses."""
        _, idle, listed, values, held = self._kept
        if list(map(len, lists)) != list(map(len, listed)) or len(state) != len(values):
            return False
        if FUNCTIONS.exchange:
            return self._scan(_ids(lists), id(state), False)
        now = [*map(_ids, lists), _ids(state.values()), _ids(holder.get(key) for holder, key in held)]
        if not all(map(np.array_equal, now, [*map(_ids, listed), _ids(values), _ids(self._held)])):
            return False
        tensors = self._all_tensors()
        if list(map(_facts, tensors)) != self._facts or any(param.grad is not None for param in idle):
            return False
        addresses = np.array([tensor.data_ptr() for tensor in tensors], np.int64)
        address, state_address = addresses[: self.address.size].reshape(-1, 2).T, addresses[self.address.size :]
        if not addresses[self._filled].all() or not np.array_equal(state_address, self._state_address):
            return False
        self._moved |= not np.array_equal(address, self.address)
        self.address[:] = address
        return True

    def moved(self) -> bool:
        """Whether an address has changed since this was last asked."""
        moved, self._moved[0] = self._moved[0], False
        return moved
