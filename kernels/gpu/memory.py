"""Triton: typed pointers out of the address table, loads and stores at them.

A value lies in one row of addresses or in two: a 16-bit parameter and its float32 master, a bfloat16 parameter and the
remainder of its master, the codes of an 8-bit state and their scales. `ptrs` are those of one value, at its first element.
"""

from ..lang import jit, tl
from ..quant import GROUP, LEAST_SCALE, decoded, encoded
from ..rounding import joined, master_of, nearest, random_bits, shown, split, stochastic, widened

GROUP = tl.constexpr(GROUP)
LEAST_SCALE = tl.constexpr(LEAST_SCALE)


@jit
def row_pointer(addresses_ptr, row: tl.constexpr, tensor, n_tensors, dtype: tl.constexpr, ALIGN: tl.constexpr):
    ptr = tl.load(addresses_ptr + row * n_tensors + tensor).to(tl.pointer_type(dtype))
    return tl.multiple_of(ptr, ALIGN)  # on the pointer: the cast drops a hint on the integer


@jit
def value_pointers(
    addresses_ptr, tensor, n_tensors, start, first: tl.constexpr, last: tl.constexpr, DTYPES: tl.constexpr, ALIGN: tl.constexpr
):
    """Into the rows from `first` up to `last`, which hold one value."""
    ptr = row_pointer(addresses_ptr, first, tensor, n_tensors, DTYPES[first], ALIGN)
    if last - first == 1:
        return (ptr + start,)
    else:
        beside = row_pointer(addresses_ptr, first + 1, tensor, n_tensors, DTYPES[first + 1], ALIGN)
        return ptr + start, beside + (start // GROUP if DTYPES[first].primitive_bitwidth == 8 else start)


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
def load(ptrs, first, limit, BLOCK: tl.constexpr, compute: tl.constexpr):
    """The elements from `first` on, those below `limit` if it is not None, as the compute type."""
    offsets = tl.multiple_of(first, BLOCK) + tl.arange(0, BLOCK)
    value = load_below(ptrs[0], offsets, limit)
    if len(ptrs) == 1:
        value = widened(value, compute)
    elif ptrs[0].dtype.element_ty.primitive_bitwidth == 8:
        groups = (first // GROUP + tl.arange(0, BLOCK // GROUP))[:, None]
        value = from_groups(decoded(in_groups(value), load_below(ptrs[1], groups, limit, GROUP)))
    else:
        beside = load_below(ptrs[1], offsets, limit)
        value = joined(value, beside) if ptrs[1].dtype.element_ty == tl.int16 else master_of(value, beside)
    return value


@jit
def store_scales(ptr, first, limit, scale, EACH: tl.constexpr):
    """One for each group, by the first of the threads that hold its elements, EACH each.

    Pointers are as many as these threads, and not seen to rise from group to group: pointers that Triton sees to rise, it hands to
    threads in their order, and scales after them, through shared memory and barriers.
    """
    N: tl.constexpr = GROUP // EACH
    groups = (first // GROUP + tl.arange(0, scale.shape[0]))[:, None]
    thread = tl.arange(0, N)[None, :]
    mask = thread == 0 if limit is None else (thread == 0) & (groups * GROUP < limit)
    place = (groups * N + thread) // N  # the group
    tl.store(ptr + place, tl.broadcast_to(scale, [scale.shape[0], N]), mask=mask)


@jit
def store(ptrs, first, limit, value, place, keys, EACH: tl.constexpr, STREAM: tl.constexpr, STOCHASTIC: tl.constexpr):
    """What load() is to read; the element's place, from `place` on, and keys choose its random bits in a stream of its own."""
    offsets = tl.multiple_of(first, value.shape[0]) + tl.arange(0, value.shape[0])
    index = place.to(tl.uint32) + offsets.to(tl.uint32)
    dtype: tl.constexpr = ptrs[0].dtype.element_ty
    if len(ptrs) == 1:
        if STOCHASTIC and (dtype == tl.bfloat16 or dtype == tl.float16):
            stored = stochastic(value, random_bits(index, keys, STREAM), dtype)
        else:
            stored = nearest(value, dtype)
        store_below(ptrs[0], offsets, stored, limit)
    elif ptrs[0].dtype.element_ty.primitive_bitwidth == 8:
        size = in_groups(value.to(tl.uint32, bitcast=True) & 0x7FFFFFFF).to(tl.int32)
        if limit is not None:
            size = tl.where(in_groups(offsets) < limit, size, 0)
        peak = tl.max(size, axis=1, keep_dims=True)  # as integers, where a NaN is the largest
        scale = tl.where(peak > LEAST_SCALE, peak, LEAST_SCALE).to(tl.float32, bitcast=True)
        codes = encoded(in_groups(value), scale, in_groups(random_bits(index, keys, STREAM)), dtype)
        store_below(ptrs[0], offsets, from_groups(codes), limit)
        store_scales(ptrs[1], first, limit, scale, EACH)
    elif ptrs[1].dtype.element_ty == tl.int16:
        param, remainder = split(value)
        store_below(ptrs[0], offsets, param, limit)
        store_below(ptrs[1], offsets, remainder, limit)
    else:
        store_below(ptrs[0], offsets, shown(value, dtype), limit)
        store_below(ptrs[1], offsets, value, limit)
