"""C functions of CPython and DLPack, and how compiled code calls them."""

import ctypes
from types import GetSetDescriptorType
from typing import NamedTuple

import torch
from llvmlite import ir
from numba.core import types as nt
from numba.extending import intrinsic
from torch import Tensor
from torch.nn import Parameter

from ...kernels.cpu.memory import build_prefetch

GRAD, LOCAL_TENSOR = "grad", "_local_tensor"  # names of attributes; the second, of a DTensor, is the local shard


class Api(NamedTuple):
    """Addresses of C functions, and of Python objects that they are given."""

    exchange: int  # DLPack's dltensor_from_py_object_no_sync, 0 where torch has none
    get_grad: int  # what Parameter.grad calls, of a parameter and 0; 0 where that is not known
    get_attribute: int
    hold: int
    release: int
    list_size: int
    list_item: int
    list_set: int
    dict_item: int
    dict_next: int
    clear_error: int
    error_matches: int
    thread: int
    raise_in: int
    none: int
    parameter: int  # the class, if get_grad is known
    keyboard_interrupt: int
    grad: int  # GRAD
    local_tensor: int  # LOCAL_TENSOR


def _exchange() -> int:
    capsule = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return 0
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # version (major, minor), previous table, allocator, from object, to object, the one we want, stream
    table = (ctypes.c_uint64 * 7).from_address(pointer(capsule, b"dlpack_exchange_api"))
    return table[5] if table[0] & 0xFFFFFFFF == 1 else 0


def _python(function: str) -> int:
    return ctypes.cast(getattr(ctypes.pythonapi, function), ctypes.c_void_p).value or 0


GRAD_OF_PARAMETER = Parameter.grad  # the descriptor; what somebody else puts in its place is asked as any attribute is


def _get_grad() -> int:
    """The C function behind Parameter.grad: to look the attribute up first takes a fifth longer.

    CPython has it in a PyGetSetDef, which the descriptor points at: name, function, setter, documentation, what the function is given.
    """
    descriptor = GRAD_OF_PARAMETER
    if not isinstance(descriptor, GetSetDescriptorType):
        return 0
    words = (ctypes.c_int64 * 6).from_address(id(descriptor))  # reference count, class, owner, two names, definition
    if words[1] != id(GetSetDescriptorType) or words[2] != id(descriptor.__objclass__):
        return 0
    definition = (ctypes.c_int64 * 5).from_address(words[5])
    if ctypes.string_at(definition[0]) != GRAD.encode() or definition[4]:
        return 0
    function = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.c_void_p)(definition[1])
    param = Parameter(torch.zeros(1, device="cpu"))
    known = function(param, None) is None
    param.grad = torch.zeros(1, device="cpu")
    return definition[1] if known and function(param, None) is param.grad else 0


_GET_GRAD = _get_grad()

API = Api(
    exchange=_exchange(),
    get_grad=_GET_GRAD,
    get_attribute=_python("PyObject_GetAttr"),
    hold=_python("Py_IncRef"),
    release=_python("Py_DecRef"),
    list_size=_python("PyList_Size"),
    list_item=_python("PyList_GetItem"),
    list_set=_python("PyList_SetItem"),
    dict_item=_python("PyDict_GetItemWithError"),
    dict_next=_python("PyDict_Next"),
    clear_error=_python("PyErr_Clear"),
    error_matches=_python("PyErr_ExceptionMatches"),
    thread=_python("PyThread_get_thread_ident"),
    raise_in=_python("PyThreadState_SetAsyncExc"),
    none=id(None),
    parameter=id(Parameter) if _GET_GRAD else 0,
    keyboard_interrupt=id(KeyboardInterrupt),
    grad=id(GRAD),
    local_tensor=id(LOCAL_TENSOR),
)


def sizes_address(tensor: Tensor) -> int:
    """Where torch keeps the sizes of a tensor, as DLPack tells it."""
    view = (ctypes.c_int64 * 6)()  # DLTensor: data, device, ndim and dtype, shape *, strides *, byte offset
    if ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)(API.exchange)(tensor, ctypes.addressof(view)):
        raise RuntimeError("DLPack does not take this tensor")
    return view[3]


@intrinsic
def call(typing_context, function, args):
    """Call a C function of integers and pointers; the GIL is held, as Numba holds it unless told otherwise."""

    def build(context, builder, signature, values):
        n, word = len(signature.args[1]), ir.IntType(64)
        pointer = builder.inttoptr(values[0], ir.FunctionType(word, [word] * n).as_pointer())
        return builder.call(pointer, [builder.extract_value(values[1], i) for i in range(n)])

    return nt.int64(nt.int64, nt.UniTuple(nt.int64, len(args))), build


@intrinsic
def peek(typing_context, address):
    """The int64 at an address."""

    def build(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()))

    return nt.int64(nt.int64), build


@intrinsic
def count(typing_context, address):
    """Add 1 to the uint32 at an address, which other threads may read or count meanwhile."""

    def build(context, builder, signature, args):
        i32 = ir.IntType(32)
        builder.atomic_rmw("add", builder.inttoptr(args[0], i32.as_pointer()), i32(1), "monotonic")
        return context.get_dummy_value()

    return nt.none(nt.int64), build


@intrinsic
def prefetch(typing_context, address):
    """Ask for the memory at an address, which need not be one."""

    def build(context, builder, signature, args):
        build_prefetch(builder, builder.inttoptr(args[0], ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return nt.none(nt.int64), build
