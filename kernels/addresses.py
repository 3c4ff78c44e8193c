"""Addresses of many tensors, read only if nothing else about the tensors has changed.

A stale address is memory corruption, so device, dtype, shape and strides are compared before every step. In Python these are
five calls a tensor, half a microsecond; DLPack's C interface (torch 2.10 on) gives them all in one, and a compiled loop calls it.
"""

import ctypes
from collections.abc import Iterable
from itertools import chain

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types as nt
from numba.extending import intrinsic


@intrinsic
def _call(typing_context, function, obj, out):
    """int function(PyObject *obj, DLTensor *out), at an address; the GIL is held, as Numba holds it unless told otherwise."""

    def build(context, builder, signature, args):
        pointer = ir.FunctionType(ir.IntType(32), [ir.IntType(64)] * 2).as_pointer()
        return builder.call(builder.inttoptr(args[0], pointer), args[1:])

    return nt.int32(nt.int64, nt.int64, nt.int64), build


@intrinsic
def _peek(typing_context, address):
    """The int64 at an address."""

    def build(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()))

    return nt.int64(nt.int64), build


@numba.njit(cache=True)
def _scan(
    exchange,  # address of DLPack's dltensor_from_py_object_no_sync
    clear_error,  # address of PyErr_Clear
    objects,  # address of an array of PyObject *: the tensors, then the others
    address,  # int64 [n_tensors], written
    kinds,  # int64 [n_tensors, 2]: DLTensor's device word, ndim and dtype word
    dims_start,  # int64 [n_tensors]: where in dims
    dims,  # int64 [sum of 2 ndim]: shape, then strides, of each
    others,  # int64 [n_others]: object addresses
    record,  # write kinds and dims instead of comparing
):
    view = np.empty(6, np.int64)  # DLTensor: data, device, ndim and dtype, shape *, strides *, byte offset
    for k in range(address.size):
        if _call(exchange, _peek(objects + 8 * k), view.ctypes.data) != 0:  # not a tensor, or a sparse one
            _call(clear_error, 0, 0)
            return False
        address[k] = view[0] + view[5]
        if record:
            kinds[k] = view[1:3]
        elif view[1] != kinds[k, 0] or view[2] != kinds[k, 1]:
            return False
        ndim = view[2] & 0xFFFFFFFF
        for d in range(2 * ndim):
            dim = _peek(view[3] + 8 * d) if d < ndim else _peek(view[4] + 8 * (d - ndim))
            if record:
                dims[dims_start[k] + d] = dim
            elif dim != dims[dims_start[k] + d]:
                return False
    for k in range(others.size):
        if _peek(objects + 8 * (address.size + k)) != others[k]:
            return False
    return True


def _exchange_function() -> int:
    """Address of torch's dltensor_from_py_object_no_sync, 0 where torch has none (before 2.10)."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return 0
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = (ctypes.c_uint64 * 7).from_address(pointer(capsule, b"dlpack_exchange_api"))
    major = table[0] & 0xFFFFFFFF
    return table[5] if major == 1 else 0  # header (version, previous), allocator, from, to, dltensor_from, stream


_EXCHANGE = _exchange_function()
_CLEAR_ERROR = ctypes.cast(ctypes.pythonapi.PyErr_Clear, ctypes.c_void_p).value


def _facts(tensor):
    if tensor is None or tensor.layout is not torch.strided:
        return None
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride(), tensor.data_ptr()


class Snapshot:
    """What a list of tensors looked like, and the identity of other objects that must not be replaced.

    Args:
        tensors: strided tensors.
        others: any objects; kept alive, so that their addresses stay theirs.

    Attributes:
        address: int64 [n_tensors], written by `same`.
    """

    def __init__(self, tensors: list[torch.Tensor], others: list[object]):
        self._others = others
        self.address = np.zeros(len(tensors), np.int64)
        if not _EXCHANGE:
            self._recorded = [_facts(tensor)[:-1] for tensor in tensors]
            return
        n_dims = np.array([2 * tensor.dim() for tensor in tensors], np.int64)
        self._kinds = np.zeros((len(tensors), 2), np.int64)
        self._dims_start = np.cumsum(n_dims) - n_dims
        self._dims = np.zeros(n_dims.sum(), np.int64)
        self._other_ids = np.fromiter(map(id, others), np.int64, len(others))
        self._scan(tensors, others, True)

    def same(self, tensors: Iterable[torch.Tensor | None], others: Iterable[object]) -> bool:
        """Whether device, dtype, shape and strides of every tensor and the identity of every other are as recorded; reads the addresses."""
        if _EXCHANGE:
            return self._scan(tensors, others, False)
        facts = [_facts(tensor) for tensor in tensors]
        if None in facts or [fact[:-1] for fact in facts] != self._recorded or list(map(id, others)) != list(map(id, self._others)):
            return False
        self.address[:] = [fact[-1] for fact in facts]
        return True

    def _scan(self, tensors, others, record: bool) -> bool:
        n = self.address.size + self._other_ids.size
        objects = np.fromiter(chain(tensors, others), object, n)  # NumPy keeps them as an array of PyObject *
        return _scan(
            _EXCHANGE, _CLEAR_ERROR, objects.ctypes.data,
            self.address, self._kinds, self._dims_start, self._dims, self._other_ids, record,
        )  # fmt: skip
