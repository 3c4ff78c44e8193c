"""Triton: typed pointers out of the address table, loads and stores at them."""

from .lang import jit, tl
from .rounding import nearest


@jit
def row_pointer(addresses_ptr, row: tl.constexpr, tensor, n_tensors, dtype: tl.constexpr, ALIGN: tl.constexpr):
    ptr = tl.load(addresses_ptr + row * n_tensors + tensor).to(tl.pointer_type(dtype))
    return tl.multiple_of(ptr, ALIGN)  # on the pointer: the cast drops a hint on the integer


@jit
def load_numbers(ptr, N: tl.constexpr):
    numbers = ()
    for n in tl.static_range(N):
        numbers = numbers + (tl.load(ptr + n),)
    return numbers


@jit
def load(ptr, offsets, mask, compute: tl.constexpr):
    return tl.load(ptr + offsets, mask=mask).to(compute)


@jit
def store(ptr, offsets, value, mask):
    tl.store(ptr + offsets, nearest(value, ptr.dtype.element_ty), mask=mask)
