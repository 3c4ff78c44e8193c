"""Addresses of parameters and gradients, read only if nothing else about them has changed.

A stale address is memory corruption. So before every step device, dtype, shape and strides of each tensor are compared, and
whether parameters and states are still those that the tables were made for. In Python this is a microsecond a parameter; here
a compiled loop asks CPython's C API, and DLPack's C interface (torch 2.10 on), which gives all facts of a tensor in one call.
"""

import ctypes
import functools
from typing import NamedTuple

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types as nt
from numba.extending import intrinsic
from torch import Tensor


class _Functions(NamedTuple):
    """Addresses of C functions."""

    exchange: int  # DLPack's dltensor_from_py_object_no_sync, 0 where torch has none
    get_attribute: int
    release: int
    list_item: int
    dict_item: int
    dict_next: int
    clear_error: int


def _exchange() -> int:
    capsule = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return 0
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # version (major, minor), previous table, allocator, from object, to object, the one we want, stream
    table = (ctypes.c_uint64 * 7).from_address(pointer(capsule, b"dlpack_exchange_api"))
    return table[5] if table[0] & 0xFFFFFFFF == 1 else 0


_PYTHON = ("PyObject_GetAttr", "Py_DecRef", "PyList_GetItem", "PyDict_GetItem", "PyDict_Next", "PyErr_Clear")
FUNCTIONS = _Functions(_exchange(), *(ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0 for name in _PYTHON))
_GRAD = "grad"


@intrinsic
def _call(typing_context, function, args):
    """Call a C function of integers and pointers; the GIL is held, as Numba holds it unless told otherwise."""

    def build(context, builder, signature, values):
        n, word = len(signature.args[1]), ir.IntType(64)
        pointer = builder.inttoptr(values[0], ir.FunctionType(word, [word] * n).as_pointer())
        return builder.call(pointer, [builder.extract_value(values[1], i) for i in range(n)])

    return nt.int64(nt.int64, nt.UniTuple(nt.int64, len(args))), build


@intrinsic
def _peek(typing_context, address):
    """The int64 at an address."""

    def build(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()))

    return nt.int64(nt.int64), build


class _Tensors(NamedTuple):
    """Facts of parameters (row 0) and gradients (row 1) as DLPack tells them."""

    address: np.ndarray  # int64 [2, n]
    kind: np.ndarray  # int64 [2, n, 2]: device; ndim and dtype
    dims_start: np.ndarray  # int64 [2, n]: where in dims
    dims: np.ndarray  # int64: shape, then strides, of each
    moved: np.ndarray  # bool [1]: an address has changed


class _Objects(NamedTuple):
    """Addresses of Python objects, all int64."""

    active: np.ndarray  # parameters with a gradient
    idle: np.ndarray  # parameters without
    listed: np.ndarray  # what the parameter groups' lists hold, one after the other
    values: np.ndarray  # values of the optimizer's state, in its order
    holders: np.ndarray  # of the states: the dict
    keys: np.ndarray  # the name
    states: np.ndarray  # and the tensor


@numba.njit(cache=True)
def _same_tensor(functions, obj, row, k, tensors, record, view):
    if _call(functions.exchange, (obj, view.ctypes.data)) & 0xFFFFFFFF:  # not a tensor, or a sparse one
        return False
    address = view[0] + view[5]
    if address != tensors.address[row, k]:
        tensors.address[row, k] = address
        tensors.moved[0] = True
    if record:
        tensors.kind[row, k, 0], tensors.kind[row, k, 1] = view[1], view[2]
    elif view[1] != tensors.kind[row, k, 0] or view[2] != tensors.kind[row, k, 1]:
        return False
    ndim, start = view[2] & 0xFFFFFFFF, tensors.dims_start[row, k]
    for d in range(2 * ndim):
        dim = _peek(view[3] + 8 * d) if d < ndim else _peek(view[4] + 8 * (d - ndim))
        if record:
            tensors.dims[start + d] = dim
        elif dim != tensors.dims[start + d]:
            return False
    return True


@numba.njit(cache=True)
def _same(functions, grad_name, none, sizes, objects, tensors, lists, state, record):
    """Everything as recorded, or record the facts of the tensors; False leaves a Python error to be cleared."""
    view = np.empty(6, np.int64)  # DLTensor: data, device, ndim and dtype, shape *, strides *, byte offset
    for k in range(objects.active.size):
        grad = _call(functions.get_attribute, (objects.active[k], grad_name))
        if grad == 0:
            return False
        same = _same_tensor(functions, objects.active[k], 0, k, tensors, record, view)
        same = same and _same_tensor(functions, grad, 1, k, tensors, record, view)
        _call(functions.release, (grad,))  # the parameter still holds it
        if not same:
            return False
    for k in range(objects.idle.size):
        grad = _call(functions.get_attribute, (objects.idle[k], grad_name))
        if grad == 0:
            return False
        _call(functions.release, (grad,))
        if grad != none:
            return False
    position = 0
    for k in range(lists.size):
        for i in range(sizes[k]):
            if _call(functions.list_item, (lists[k], i)) != objects.listed[position]:
                return False
            position += 1
    entry = np.zeros(3, np.int64)  # PyDict_Next's position, key, value
    at = entry.ctypes.data
    for value in objects.values:
        if not _call(functions.dict_next, (state, at, at + 8, at + 16)) & 0xFFFFFFFF or entry[2] != value:
            return False
    for k in range(objects.states.size):
        if _call(functions.dict_item, (objects.holders[k], objects.keys[k])) != objects.states[k]:
            return False
    return True


@numba.njit(cache=True)
def _scan(functions, grad_name, none, sizes, objects, tensors, lists, state, record):
    same = _same(functions, grad_name, none, sizes, objects, tensors, lists, state, record)
    if not same:
        _call(functions.clear_error, ())
    return same


def _ids(values) -> np.ndarray:
    return np.fromiter(map(id, values), np.int64)


def _facts(tensor):
    if tensor is None or tensor.layout is not torch.strided:
        return None
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride()


class Snapshot:
    """What an optimizer's parameters, gradients and states looked like.

    Args:
        active: parameters that have a gradient, strided like it.
        idle: parameters that have none.
        lists: the lists of parameters, one a parameter group.
        state: the optimizer's.
        states: those that a step uses, as (a value of `state`, the name in it).

    Attributes:
        address: int64 [2, n_active], of parameters and of gradients; written by `same`.
    """

    def __init__(self, active: list[Tensor], idle: list[Tensor], lists: list[list], state: dict, states: list[tuple[dict, str]]):
        tensors = active + [param.grad for param in active]
        held = [holder[key] for holder, key in states]
        self._kept = active, idle, [list(params) for params in lists], list(state.values()), states, held  # so that ids stay theirs
        self.address = np.zeros((2, len(active)), np.int64)
        self._moved = np.ones(1, np.bool_)
        if not FUNCTIONS.exchange:
            self._facts = list(map(_facts, tensors))
            return
        n_dims = np.array([2 * tensor.dim() for tensor in tensors], np.int64)
        facts = _Tensors(
            self.address,
            np.zeros((2, len(active), 2), np.int64),
            (np.cumsum(n_dims) - n_dims).reshape(2, -1),
            np.zeros(n_dims.sum(), np.int64),
            self._moved,
        )
        objects = _Objects(
            _ids(active),
            _ids(idle),
            np.concatenate([_ids(params) for params in lists]),
            _ids(state.values()),
            _ids(holder for holder, _ in states),
            _ids(key for _, key in states),
            _ids(held),
        )
        fixed = FUNCTIONS, id(_GRAD), id(None), np.array(list(map(len, lists)), np.int64), objects, facts
        # compile() returns the machine code itself: a call through Numba's dispatcher costs as much as 50 parameters
        entry = _scan.compile(tuple(map(numba.typeof, (*fixed, _ids(lists), id(state), True))))
        self._scan = functools.partial(entry, *fixed)
        self._scan(_ids(lists), id(state), True)

    def same(self, lists: list[list], state: dict) -> bool:
        """Whether all is as it was; reads the addresses."""
        active, idle, listed, values, states, held = self._kept
        if list(map(len, lists)) != list(map(len, listed)) or len(state) != len(values):
            return False
        if FUNCTIONS.exchange:
            return self._scan(_ids(lists), id(state), False)
        tensors = active + [param.grad for param in active]
        if list(map(_facts, tensors)) != self._facts or any(param.grad is not None for param in idle):
            return False
        now = [*map(_ids, lists), _ids(state.values()), _ids(holder.get(key) for holder, key in states)]
        if not all(map(np.array_equal, now, [*map(_ids, listed), _ids(values), _ids(held)])):
            return False
        address = np.array([tensor.data_ptr() for tensor in tensors], np.int64).reshape(2, -1)
        self._moved |= not np.array_equal(address, self.address)
        self.address[:] = address
        return True

    def moved(self) -> bool:
        """Whether an address has changed since this was last asked."""
        moved, self._moved[0] = self._moved[0], False
        return moved
