"""Triton: typed pointers out of the address table, loads and stores at them.

A value lies in one row of addresses or in two, by its format (storage.py). `ptrs` are those of one value, at its first element.
"""

from .. import quant, storage
from ..lang import jit, tl
from ..quant import dequantize, quantize
from ..rounding import (
    master_or_param,
    merge_remainder,
    random_bits,
    round_master,
    round_stochastically,
    round_to_nearest,
    split_master,
    upcast,
)

GROUP, LEAST_SCALE = tl.constexpr(quant.GROUP), tl.constexpr(quant.LEAST_SCALE)
PLAIN, MASTER, SPLIT, QUANTIZED = map(tl.constexpr, (storage.PLAIN, storage.MASTER, storage.SPLIT, storage.QUANTIZED))


@jit
def row_pointer(addresses_ptr, row: tl.constexpr, tensor, n_tensors, dtype: tl.constexpr, ALIGN: tl.constexpr):
    ptr = tl.load(addresses_ptr + row * n_tensors + tensor).to(tl.pointer_type(dtype))
    return tl.multiple_of(ptr, ALIGN)  # on the pointer: the cast drops a hint on the integer


@jit
def value_pointers(
    addresses_ptr, tensor, n_tensors, start, row: tl.constexpr, FORMAT: tl.constexpr, DTYPES: tl.constexpr, ALIGN: tl.constexpr
):
    """Of a value whose rows begin at `row`, at its element `start`."""
    ptr = row_pointer(addresses_ptr, row, tensor, n_tensors, DTYPES[row], ALIGN)
    if FORMAT == PLAIN:
        return (ptr + start,)
    else:
        second = row_pointer(addresses_ptr, row + 1, tensor, n_tensors, DTYPES[row + 1], ALIGN)
        return ptr + start, second + (start // GROUP if FORMAT == QUANTIZED else start)


@jit
def load_numbers(ptr, N: tl.constexpr):
    numbers = ()
    for n in tl.static_range(N):
        numbers = numbers + (tl.load(ptr + n),)
    return numbers


@jit
def load_below(ptr, offsets, limit, PER: tl.constexpr = 1):
    """Without a mask where limit is None: one that could split a vector makes every access scalar. PER: elements of one offset."""
    if limit is None:
        return tl.load(ptr + offsets)
    else:
        return tl.load(ptr + offsets, mask=offsets * PER < limit)


@jit
def store_below(ptr, offsets, value, limit):
    if limit is None:
        tl.store(ptr + offsets, value)
    else:
        tl.store(ptr + offsets, value, mask=offsets < limit)


@jit
def in_groups(x):
    return tl.reshape(x, [x.shape[0] // GROUP, GROUP])


@jit
def from_groups(x):
    return tl.reshape(x, [x.shape[0] * GROUP])


@jit
def load(ptrs, first, limit, FORMAT: tl.constexpr, BLOCK: tl.constexpr, compute: tl.constexpr):
    """The elements from `first` on, those below `limit` if it is not None, as the compute type."""
    first = tl.multiple_of(first, BLOCK)
    if FORMAT == QUANTIZED:
        # at the block, and then in it: addresses take an instruction less, which elsewhere would take registers
        codes = load_below(ptrs[0] + first, tl.arange(0, BLOCK), None if limit is None else limit - first)
        groups = (first // GROUP + tl.arange(0, BLOCK // GROUP))[:, None]
        return from_groups(dequantize(in_groups(codes), load_below(ptrs[1], groups, limit, GROUP)))
    offsets = first + tl.arange(0, BLOCK)
    stored = load_below(ptrs[0], offsets, limit)
    if FORMAT == PLAIN:
        value = upcast(stored, compute)
    elif FORMAT == SPLIT:
        value = merge_remainder(stored, load_below(ptrs[1], offsets, limit))
    else:
        value = master_or_param(stored, load_below(ptrs[1], offsets, limit))
    return value


@jit
def store_scales(ptr, first, limit, scale, PER_THREAD: tl.constexpr):
    """One for each group, by the first of the threads that hold its elements, PER_THREAD each.

    Pointers are as many as these threads, and not seen to rise from group to group: pointers that Triton sees to rise, it hands to
    threads in their order, and scales after them, through shared memory and barriers.
    """
    N: tl.constexpr = GROUP // PER_THREAD
    groups = (first // GROUP + tl.arange(0, scale.shape[0]))[:, None]
    thread = tl.arange(0, N)[None, :]
    mask = thread == 0 if limit is None else (thread == 0) & (groups * GROUP < limit)
    index = (groups * N + thread) // N  # the group
    tl.store(ptr + index, tl.broadcast_to(scale, [scale.shape[0], N]), mask=mask)


@jit
def store_quantized(ptrs, first, limit, value, random, PER_THREAD: tl.constexpr):
    """Codes and scales; random: 16 bits for each element, as uint32."""
    offsets = tl.multiple_of(first, value.shape[0]) + tl.arange(0, value.shape[0])
    dtype: tl.constexpr = ptrs[0].dtype.element_ty
    bits = value.to(tl.uint32, bitcast=True)
    size = in_groups(bits if dtype == tl.uint8 else bits & 0x7FFFFFFF)  # uint8: what is never negative, or a NaN of either sign
    if limit is not None:
        size = tl.where(in_groups(offsets) < limit, size, 0)
    peak = tl.max(size, axis=1, keep_dims=True)  # as integers, where a NaN is the largest
    scale = tl.where(peak > LEAST_SCALE, peak, LEAST_SCALE).to(tl.float32, bitcast=True)
    codes = quantize(in_groups(value), scale, in_groups(random), dtype)
    store_below(ptrs[0], offsets, from_groups(codes), limit)
    store_scales(ptrs[1], first, limit, scale, PER_THREAD)


@jit
def store(
    ptrs, first, limit, value, offset, keys, FORMAT: tl.constexpr, PER_THREAD: tl.constexpr, STREAM: tl.constexpr, STOCHASTIC: tl.constexpr
):
    """What load() is to read; the elements' offsets in their parameter, from `offset` on, and keys choose their random bits of a stream."""
    offsets = tl.multiple_of(first, value.shape[0]) + tl.arange(0, value.shape[0])
    index = offset.to(tl.uint32) + offsets.to(tl.uint32)
    dtype: tl.constexpr = ptrs[0].dtype.element_ty
    if FORMAT == PLAIN:
        if STOCHASTIC and (dtype == tl.bfloat16 or dtype == tl.float16):
            stored = round_stochastically(value, random_bits(index, keys, STREAM), dtype)
        else:
            stored = round_to_nearest(value, dtype)
        store_below(ptrs[0], offsets, stored, limit)
    elif FORMAT == QUANTIZED:
        store_quantized(ptrs, first, limit, value, random_bits(index, keys, STREAM), PER_THREAD)
    elif FORMAT == SPLIT:
        param, remainder = split_master(value)
        store_below(ptrs[0], offsets, param, limit)
        store_below(ptrs[1], offsets, remainder, limit)
    else:
        store_below(ptrs[0], offsets, round_master(value, dtype), limit)
        store_below(ptrs[1], offsets, value, limit)
